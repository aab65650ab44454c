"""An entry of the list of processes that serve metrics."""

import msgspec

TOLD_EACH_S = 10.0
FORGOTTEN_AFTER_S = 25.0


class Target(msgspec.Struct, frozen=True):
    """Where one process serves its metrics. `at`: when it last said so, Unix seconds."""

    address: str  # host:port
    process: str  # api, scaler, tasks or replica
    at: float
    replica: str = ""
    deployment: str = ""  # its id


decode_target = msgspec.json.Decoder(Target).decode
