"""Between host and device without waiting for what the device is doing."""

import torch


def to_device(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy that is done in the order of the current stream.

    From pageable memory CUDA would first wait for the stream. Pinned blocks are cached by torch,
    which gives one out again only when its copies are done.
    """
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


class ToHost:
    """Tensors on their way to the host, in the order of the current stream."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self._tensors = tensors
        self._copied = None
        if tensors and tensors[0].device.type == "cuda":
            self._tensors = [_pinned_copy(t) for t in tensors]
            self._copied = torch.cuda.current_stream(tensors[0].device).record_event()

    def read(self) -> list[torch.Tensor]:
        """Waits until the device has come so far, and no longer."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._tensors


def _pinned_copy(on_device: torch.Tensor) -> torch.Tensor:
    host = torch.empty_like(on_device, device="cpu", pin_memory=True)
    return host.copy_(on_device, non_blocking=True)
