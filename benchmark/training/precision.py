"""Where bfloat16 is worth using: only where the hardware multiplies it natively."""

from __future__ import annotations

import torch


def native_bf16(device: str) -> bool:
    """Return whether ``device`` of this machine has bfloat16 instructions; without them torch emulates it, slowly.

    Of a cluster's GPUs a machine without any believes that they do, as all have since 2020.
    """
    if device == "cuda":
        return not torch.cuda.is_available() or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
