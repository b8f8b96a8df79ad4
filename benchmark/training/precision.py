"""Decides where to use bfloat16: only where the hardware multiplies it natively."""

from __future__ import annotations

import torch


def native_bf16(device: str) -> bool:
    """Return whether ``device`` has bfloat16 instructions. Without them torch emulates bfloat16, slowly.

    A machine without a GPU assumes that the cluster's GPUs support bfloat16, as all have since 2020.
    """
    if device == "cuda":
        return not torch.cuda.is_available() or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
