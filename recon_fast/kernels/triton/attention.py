"""Cross-attention of a few queries over masked keys, forward and backward.

    out = softmax(scale * q k^T + log mask) v        logsumexp = log sum_s mask_s exp(scale * q k_s)

Scores and weights are never written to memory. A program takes the queries of one head and passes the keys,
in one tile where a row is short (then there is no online softmax: the loop has one trip) and in several
where it is long. The byte mask is read directly, and masked keys and values are not read at all, so nothing
behind the mask can leak. Sums are in float32. The backward needs no atomics: with as many queries as fit a
block a single program sees all of a head, and writes dq, dk and dv in one launch; with more, a second
launch goes over the keys.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from recon_fast.kernels.triton._common import on_device_of

MAX_QUERY_BLOCK = 64  # 16 where a row of a head is wider than 128 bytes
MAX_KEY_BLOCK = 64  # half of it there, and in the backward, which would spill
NUM_WARPS = 4
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _load_rows(ptr, i_b, i_h, strides, o_r, o_d, m_r, D):
    """Rows o_r of one head [R, D], 0 where masked."""
    p_row = ptr + i_b * strides[0] + i_h * strides[1] + o_r.to(tl.int64)[:, None] * strides[2]
    return tl.load(
        p_row + o_d.to(tl.int64)[None, :] * strides[3], mask=m_r[:, None] & (o_d < D)[None, :], other=0.0
    )


@triton.jit
def _key_mask(mask_ptr, i_b, S, mask_strides, o_s):
    m_s = o_s < S
    if mask_ptr is not None:
        p_mask = mask_ptr + i_b * mask_strides[0] + o_s.to(tl.int64) * mask_strides[1]
        m_s = m_s & (tl.load(p_mask, mask=m_s, other=0) != 0)
    return m_s


@triton.jit(do_not_specialize=["H", "Q", "S"])
def _forward_kernel(
    query_ptr,  # [B, H, Q, D]
    key_ptr,  # [B, H, S, D]
    value_ptr,  # [B, H, S, D]
    mask_ptr,  # [B, S] bytes or None
    out_ptr,  # [B, H, Q, D]
    lse_ptr,  # [B, H, Q] fp32
    scale,
    H,
    Q,
    S,
    query_strides,
    key_strides,
    value_strides,
    mask_strides,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_bh = tl.program_id(0).to(tl.int64)
    i_b = i_bh // H
    i_h = i_bh % H
    o_q = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    o_d = tl.arange(0, BLOCK_D)
    b_q = _load_rows(query_ptr, i_b, i_h, query_strides, o_q, o_d, o_q < Q, D)

    b_max = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    b_sum = tl.zeros([BLOCK_Q], tl.float32)
    b_out = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    for start in range(0, S, BLOCK_S):
        o_s = start + tl.arange(0, BLOCK_S)
        m_s = _key_mask(mask_ptr, i_b, S, mask_strides, o_s)
        b_k = _load_rows(key_ptr, i_b, i_h, key_strides, o_s, o_d, m_s, D)
        b_v = _load_rows(value_ptr, i_b, i_h, value_strides, o_s, o_d, m_s, D)
        b_score = tl.dot(b_q, tl.trans(b_k), input_precision="ieee") * scale
        b_score = tl.where(m_s[None, :], b_score, float("-inf"))
        b_new = tl.maximum(b_max, tl.max(b_score, 1))
        b_shift = tl.where(b_new == float("-inf"), 0.0, b_new)  # all masked so far
        b_weight = tl.exp2((b_score - b_shift[:, None]) * LOG2_E)
        b_decay = tl.exp2((b_max - b_shift) * LOG2_E)
        b_sum = b_sum * b_decay + tl.sum(b_weight, 1)
        b_out = b_out * b_decay[:, None] + tl.dot(b_weight.to(b_v.dtype), b_v, input_precision="ieee")
        b_max = b_new

    m_none = b_sum == 0.0  # every key is masked: exactly 0
    b_out = b_out / tl.where(m_none, 1.0, b_sum)[:, None]
    b_lse = tl.where(m_none, float("-inf"), b_max + tl.log(b_sum))
    m_q = o_q < Q
    p_out = out_ptr + (i_bh * Q + o_q)[:, None] * D + o_d[None, :]
    tl.store(p_out, b_out.to(out_ptr.dtype.element_ty), mask=m_q[:, None] & (o_d < D)[None, :])
    tl.store(lse_ptr + i_bh * Q + o_q, b_lse, mask=m_q)


@triton.jit
def _gradient_tile(b_q, b_k, b_v, b_grad, b_lse, b_delta, m_s, scale):
    """Weights and score gradients [Q, S] of one tile, times scale; both 0 behind the mask."""
    b_score = tl.dot(b_q, tl.trans(b_k), input_precision="ieee") * scale
    m_s = m_s[None, :] & (b_lse != float("-inf"))[:, None]
    b_weight = tl.where(m_s, tl.exp2((b_score - b_lse[:, None]) * LOG2_E), 0.0)
    b_grad_weight = tl.dot(b_grad, tl.trans(b_v), input_precision="ieee")
    return b_weight, tl.where(m_s, b_weight * (b_grad_weight - b_delta[:, None]) * scale, 0.0)


@triton.jit
def _load_queries(
    query_ptr, grad_ptr, out_ptr, lse_ptr, i_b, i_h, i_bh, Q, D, strides, grad_strides, o_q, o_d
):
    """Queries, gradient of the output, logsumexp, and delta = grad . out of each row."""
    m_q = o_q < Q
    b_q = _load_rows(query_ptr, i_b, i_h, strides, o_q, o_d, m_q, D)
    b_grad = _load_rows(grad_ptr, i_b, i_h, grad_strides, o_q, o_d, m_q, D)
    p_out = out_ptr + (i_bh * Q + o_q)[:, None] * D + o_d[None, :]
    b_out = tl.load(p_out, mask=m_q[:, None] & (o_d < D)[None, :], other=0.0)
    b_lse = tl.load(lse_ptr + i_bh * Q + o_q, mask=m_q, other=float("-inf"))
    return b_q, b_grad, b_lse, tl.sum(b_grad.to(tl.float32) * b_out.to(tl.float32), 1)


@triton.jit
def _of_kept(mask_ptr, m_s, b_rows):
    """0 for masked keys, even from a query that is not finite."""
    if mask_ptr is not None:
        b_rows = tl.where(m_s[:, None], b_rows, 0.0)
    return b_rows


@triton.jit
def _store_rows(ptr, i_bh, size, D, o_r, o_d, b_rows):
    p_rows = ptr + (i_bh * size + o_r)[:, None] * D + o_d[None, :]
    tl.store(p_rows, b_rows.to(ptr.dtype.element_ty), mask=(o_r < size)[:, None] & (o_d < D)[None, :])


@triton.jit(do_not_specialize=["H", "Q", "S"])
def _backward_kernel(
    grad_ptr,  # [B, H, Q, D]
    query_ptr,  # [B, H, Q, D]
    key_ptr,  # [B, H, S, D]
    value_ptr,  # [B, H, S, D]
    mask_ptr,  # [B, S] bytes or None
    out_ptr,  # [B, H, Q, D]
    lse_ptr,  # [B, H, Q] fp32
    dq_ptr,  # [B, H, Q, D] or None
    dk_ptr,  # [B, H, S, D] or None
    dv_ptr,  # [B, H, S, D] or None
    scale,
    H,
    Q,
    S,
    grad_strides,
    query_strides,
    key_strides,
    value_strides,
    mask_strides,
    OVER_KEYS: tl.constexpr,  # a program per tile of keys that passes the queries, not the other way round
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_bh = tl.program_id(0).to(tl.int64)
    i_b = i_bh // H
    i_h = i_bh % H
    o_d = tl.arange(0, BLOCK_D)
    if OVER_KEYS:
        o_s = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
        m_s = _key_mask(mask_ptr, i_b, S, mask_strides, o_s)
        b_k = _load_rows(key_ptr, i_b, i_h, key_strides, o_s, o_d, m_s, D)
        b_v = _load_rows(value_ptr, i_b, i_h, value_strides, o_s, o_d, m_s, D)
        b_dk = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
        b_dv = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
        for start in range(0, Q, BLOCK_Q):
            o_q = start + tl.arange(0, BLOCK_Q)
            b_q, b_grad, b_lse, b_delta = _load_queries(
                query_ptr, grad_ptr, out_ptr, lse_ptr, i_b, i_h, i_bh, Q, D,
                query_strides, grad_strides, o_q, o_d,
            )  # fmt: skip
            b_weight, b_ds = _gradient_tile(b_q, b_k, b_v, b_grad, b_lse, b_delta, m_s, scale)
            b_dv += tl.dot(tl.trans(b_weight.to(b_grad.dtype)), b_grad, input_precision="ieee")
            b_dk += tl.dot(tl.trans(b_ds.to(b_q.dtype)), b_q, input_precision="ieee")
        _store_rows(dk_ptr, i_bh, S, D, o_s, o_d, _of_kept(mask_ptr, m_s, b_dk))
        _store_rows(dv_ptr, i_bh, S, D, o_s, o_d, _of_kept(mask_ptr, m_s, b_dv))
    else:
        o_q = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
        b_q, b_grad, b_lse, b_delta = _load_queries(
            query_ptr, grad_ptr, out_ptr, lse_ptr, i_b, i_h, i_bh, Q, D, query_strides, grad_strides, o_q, o_d
        )
        b_dq = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
        for start in range(0, S, BLOCK_S):
            o_s = start + tl.arange(0, BLOCK_S)
            m_s = _key_mask(mask_ptr, i_b, S, mask_strides, o_s)
            b_k = _load_rows(key_ptr, i_b, i_h, key_strides, o_s, o_d, m_s, D)
            b_v = _load_rows(value_ptr, i_b, i_h, value_strides, o_s, o_d, m_s, D)
            b_weight, b_ds = _gradient_tile(b_q, b_k, b_v, b_grad, b_lse, b_delta, m_s, scale)
            b_dq += tl.dot(b_ds.to(b_k.dtype), b_k, input_precision="ieee")
            if dk_ptr is not None:
                b_dv = tl.dot(tl.trans(b_weight.to(b_grad.dtype)), b_grad, input_precision="ieee")
                b_dk = tl.dot(tl.trans(b_ds.to(b_q.dtype)), b_q, input_precision="ieee")
                _store_rows(dv_ptr, i_bh, S, D, o_s, o_d, _of_kept(mask_ptr, m_s, b_dv))
                _store_rows(dk_ptr, i_bh, S, D, o_s, o_d, _of_kept(mask_ptr, m_s, b_dk))
        _store_rows(dq_ptr, i_bh, Q, D, o_q, o_d, b_dq)


def attention_config(Q: int, S: int, D: int, dtype: torch.dtype, backward: bool) -> dict[str, int | bool]:
    """The one place that chooses tiles and warps; 16 is the least a matrix instruction takes."""
    block_d = max(triton.next_power_of_2(D), 16)
    wide = block_d * dtype.itemsize > 128  # bytes of a row
    block_q = min(max(triton.next_power_of_2(Q), 16), 16 if wide else MAX_QUERY_BLOCK)
    if block_q < Q:
        block_q = min(block_q, 32)  # the pass over the keys holds two tiles of sums, dk and dv
    most_keys = MAX_KEY_BLOCK // 2 if wide or backward else MAX_KEY_BLOCK
    block_s = min(max(triton.next_power_of_2(S), 16), most_keys)
    return {
        "D": D,
        "BLOCK_Q": block_q,
        "BLOCK_S": block_s,
        "BLOCK_D": block_d,
        "num_warps": NUM_WARPS,
        "num_stages": 1 if block_s >= S else 2,  # nothing to prefetch in a loop of one trip
        "enable_fp_fusion": True,
    }


def _mask_strides(key_mask: Tensor | None) -> tuple[int, ...]:
    return (0, 0) if key_mask is None else key_mask.stride()


def masked_cross_attention_forward(
    query: Tensor,  # [B, H, Q, D]
    key: Tensor,  # [B, H, S, D]
    value: Tensor,  # [B, H, S, D]
    key_mask: Tensor | None,  # [B, S] bool
    scale: float,
) -> tuple[Tensor, Tensor]:  # [B, H, Q, D], [B, H, Q] fp32
    """See `recon_fast.kernels.masked_cross_attention`; logsumexp is for the backward, -inf without keys."""
    B, H, Q, D = query.shape
    S = key.shape[2]
    config = attention_config(Q, S, D, query.dtype, backward=False)
    out = torch.empty(B, H, Q, D, dtype=value.dtype, device=query.device)
    lse = torch.empty(B, H, Q, dtype=torch.float32, device=query.device)
    mask = None if key_mask is None else key_mask.view(torch.uint8)
    with on_device_of(query):
        _forward_kernel[(B * H, triton.cdiv(Q, config["BLOCK_Q"]))](
            query, key, value, mask, out, lse, float(scale), H, Q, S,
            query.stride(), key.stride(), value.stride(), _mask_strides(key_mask), **config,
        )  # fmt: skip
    return out, lse


def masked_cross_attention_backward(
    grad: Tensor,  # [B, H, Q, D]
    query: Tensor,  # [B, H, Q, D]
    key: Tensor,  # [B, H, S, D]
    value: Tensor,  # [B, H, S, D]
    key_mask: Tensor | None,  # [B, S] bool
    scale: float,
    out: Tensor,  # [B, H, Q, D], contiguous
    logsumexp: Tensor,  # [B, H, Q], contiguous
    need_key_grad: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # dq, dk, dv
    """Gradients in query, key and value; without `need_key_grad` the last two are None and cost nothing."""
    B, H, Q, D = query.shape
    S = key.shape[2]
    config = attention_config(Q, S, D, query.dtype, backward=True)
    dq = torch.empty(B, H, Q, D, dtype=query.dtype, device=query.device)
    dk = torch.empty(B, H, S, D, dtype=key.dtype, device=key.device) if need_key_grad else None
    dv = torch.empty(B, H, S, D, dtype=value.dtype, device=value.device) if need_key_grad else None
    mask = None if key_mask is None else key_mask.view(torch.uint8)
    inputs = grad, query, key, value, mask, out, logsumexp
    strides = grad.stride(), query.stride(), key.stride(), value.stride(), _mask_strides(key_mask)
    query_blocks, key_blocks = triton.cdiv(Q, config["BLOCK_Q"]), triton.cdiv(S, config["BLOCK_S"])
    at_once = query_blocks == 1
    with on_device_of(query):
        _backward_kernel[(B * H, query_blocks)](
            *inputs, dq, dk if at_once else None, dv if at_once else None, float(scale), H, Q, S, *strides,
            OVER_KEYS=False, **config,
        )  # fmt: skip
        if need_key_grad and not at_once:
            _backward_kernel[(B * H, key_blocks)](
                *inputs, None, dk, dv, float(scale), H, Q, S, *strides, OVER_KEYS=True, **config
            )
    return dq, dk, dv
