"""Fine-tuning of a LoRA adapter: a program of its own that knows a folder and nothing of the
platform. `python -m gpu_worker.training FOLDER` (see `config.py` for what lies there)."""
