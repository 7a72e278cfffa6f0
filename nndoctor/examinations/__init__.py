"""Active examinations of a model before it is trained, all of them made on copies: see :func:`nndoctor.checkup`."""
