"""The pages of the documentation site that are made from the rules, signals, cases and commands themselves."""
