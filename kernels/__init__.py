"""Batched LoRA products. Imports torch (and triton) only. One kernel family a file."""
