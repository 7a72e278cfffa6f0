"""The works whose claims are put to the test, by the names they are cited with."""

DIEDERICHSEN = "Diederichsen, *Live introspection for neural network training*"
DIEDERICHSEN_FINAL = "Diederichsen, *Live introspection for neural network training*, final version"
IMRAN = "Imran, *Per-layer time computation of CNN training with TensorFlow*"
NEMCOVA = "Nemcova, *Neural network training progress visualization*"
