"""Shape annotations (jaxtyping) that a trainer without jaxtyping can do without.

``Float[Tensor, "b n d"]`` is documentation in the signature. It is checked by the pytest hook only:
decorators on every function would break ``torch.compile(fullgraph=True)``.
"""

from __future__ import annotations

try:
    from jaxtyping import Bool, Float, Int, UInt8
except ImportError:  # a headless machine with only torch, timm, numpy and safetensors

    class _Annotation:
        def __class_getitem__(cls, item):
            return item[0] if isinstance(item, tuple) else item

    Bool = Float = Int = UInt8 = _Annotation

__all__ = ["Bool", "Float", "Int", "UInt8"]
