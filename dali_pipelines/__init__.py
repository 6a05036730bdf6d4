"""GPU decoding: DALI pipelines, the decoder that drives them, and nvJPEG2000 at wavelet levels."""
