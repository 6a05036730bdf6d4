"""The one seam between the trainer and a Keras backend: devices, the training step, prediction."""
