"""Writing tensors to the safetensors format one by one.

The library's own writer wants all of a file's bytes in memory, beside the tensors: for a training
state of twelve gigabytes twice that. Here a tensor comes to the host, goes to the file, and is let
go. The format: a header's length in 8 bytes, the header as JSON, the tensors' bytes one after the
other (https://github.com/huggingface/safetensors#format).
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes `tensors`, on whatever device and in whatever memory order, to a new file.

    Raises:
        OSError: If the disk refuses.
    """
    # Wide types first, as the library does it, so that every tensor is aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header, end = {}, 0
    for name in names:
        tensor = tensors[name]
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            # Brought into order where it is: a GPU does that in no time.
            plain = tensors[name].detach().contiguous().to("cpu").reshape(-1)
            file.write(plain.view(torch.uint8).numpy().data)
