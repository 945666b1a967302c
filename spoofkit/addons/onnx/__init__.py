"""A model folder as one ONNX file, and scoring with that file alone."""
