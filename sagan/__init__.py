"""A Self-Attention GAN (Zhang et al. 2018, arXiv:1805.08318) on faces: train it, sample it, look into it."""
