"""Exporting a model folder as one ONNX file, and scoring with only that file."""
