"""Continuous batching over mixed LoRA adapters. Needs torch and transformers, nothing of ours
besides `kernels`: it runs on a bare GPU machine without the platform."""
