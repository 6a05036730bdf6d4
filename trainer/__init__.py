"""From a dataset of `bcd-prep` to a trained, evaluated, explained and exported Keras classifier."""
