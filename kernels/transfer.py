"""From the host to the device without waiting for what the device is doing."""

import torch


def to_device(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy that is done in the order of the current stream.

    From pageable memory CUDA would first wait for the stream. Pinned blocks are cached by torch,
    which gives one out again only when its copies are done.
    """
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)
