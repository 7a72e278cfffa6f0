"""A client of the YAML language server, as small as two questions need: what is wrong here, and what could stand here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


class LanguageServer:
    """Speaks the language server protocol with `command` over its stdin and stdout; `folder` is the workspace."""

    def __init__(self, command: str, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen([command, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._number = 0

    def __enter__(self) -> LanguageServer:
        self._ask("initialize", {"processId": None, "rootUri": self.folder.as_uri(), "capabilities": {}})
        self._tell("initialized", {})
        settings = {"yaml": {"validate": True, "completion": True, "schemaStore": {"enable": False}}}
        self._tell("workspace/didChangeConfiguration", {"settings": settings})
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def diagnostics(self, name: str, text: str) -> list[str]:
        """What the server finds wrong with `text`."""
        uri = self._open(name, text)
        while True:
            message = self._read()
            if message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == uri:
                return [item["message"] for item in message["params"]["diagnostics"]]

    def completions(self, name: str, text: str) -> list[str]:
        """What the server offers at the end of `text`."""
        uri = self._open(name, text)
        lines = text.split("\n")
        place = {"line": len(lines) - 1, "character": len(lines[-1])}
        answer = self._ask("textDocument/completion", {"textDocument": {"uri": uri}, "position": place})
        items = answer["items"] if isinstance(answer, dict) else answer
        return [item["label"] for item in items or ()]

    def _open(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        document = {"uri": path.as_uri(), "languageId": "yaml", "version": 1, "text": text}
        self._tell("textDocument/didOpen", {"textDocument": document})
        return path.as_uri()

    def _ask(self, method: str, params: Any) -> Any:
        self._number += 1
        number = self._number
        self._send({"id": number, "method": method, "params": params})
        while True:
            message = self._read()
            if message.get("id") == number and "method" not in message:
                assert "error" not in message, message
                return message.get("result")

    def _tell(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        """The next message; a question of the server is answered with nothing, as a client without settings would."""
        stream = self._process.stdout
        assert stream is not None
        length = 0
        while (line := stream.readline()).strip() or not length:
            assert line, "the server ended"
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        message: dict[str, Any] = json.loads(stream.read(length))
        if "id" in message and "method" in message:
            items = message["params"].get("items", ()) if isinstance(message.get("params"), dict) else ()
            self._send({"id": message["id"], "result": [None] * len(items) if message["method"] == "workspace/configuration" else None})
        return message
