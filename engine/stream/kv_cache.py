"""The rolling KV cache: keys and values of a few sink frames, which stay, and of a window of the newest frames.

Self-attention of a new frame sees itself and the frames in the cache, so that earlier frames are not computed again. As
in attention sinks for language models (arXiv 2309.17453), the first frames stay while the others are replaced in turn
(StreamDiffusionV2, arXiv 2511.07399, sink-token-guided rolling KV cache).

The cache has R slots for each layer and each row of the stream batch, one latent frame per slot. A new frame is written
to the slot of its number while slots are free, and then to the slot at the head of an eviction queue. Tensor arithmetic
on the device chooses the slot: the host reads nothing back, and no tensor moves. Keys are stored after RMS norm and
RoPE and are not rotated again.

An entry of an eviction queue is the END of the block of slots to be replaced, in frames (4 is slot 3 for blocks of one
frame), as in the reference implementation; -1 is no entry.

Shape letters: A layers of the network, S rows of the stream batch, R slots, f tokens of a latent frame, J heads,
K width of a head, D = J K, F latent frames of the call, N = S F, Q places in an eviction queue, Z sinks, G = 1 + Z,
V rows of all queues.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from engine.errors import ModelError
from engine.models.spec import CacheShape
from engine.stream import eviction_queue


class Rule(enum.StrEnum):
    """How sink frames are kept and replaced.

    REFERENCE repeats the released code, including two peculiarities. A slot enters the queue when the slot before it is
    written, so the slot after the first block never enters and acts as one more sink. And an adaptive sink that has not
    been written yet has similarity 0, so the last of three is replaced as soon as the cache is full.

    HONEST keeps exactly the configured sinks and replaces all other slots in turn. Adaptive sinks are compared only
    once they are written.

    ADAPTIVE follows the paper: a sink whose cosine similarity to the new frame is below the threshold is overwritten
    with the keys and values of that frame, which is also stored in the window.
    """

    REFERENCE = "reference"
    HONEST = "honest"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True, slots=True, eq=False)
class NewFrames:
    """Describes the new frames of a forward to the cache.

    Attributes:
        number_S: int64, each row's number of latent frames before these ones; never wraps.
        anchor_S: bool, rows whose sinks are to be replaced by these frames and the ones after them.
        visible: largest number of slots that a row has written, including the new frames; known to the host.
        even: whether all rows have written that many slots. If not, a mask hides the slots that are still empty.
        again: whether the frames overwrite those of the previous call: this is a further step of the same chunk.
    """

    number_S: Tensor
    anchor_S: Tensor
    visible: int
    even: bool = True
    again: bool = False


class KVCache:
    """Keys and values of S rows: the `Memory` that the network's self-attention appends to.

    Call `begin` before a forward; in the forward, each layer calls `append`.

    Args:
        shape: numbers of slots and sinks, and the similarity threshold of adaptive sinks.
        rule: how sinks are kept and replaced.
        block: latent frames that are denoised together, and so replaced together.
        first: latent frames of a stream's first chunk.
        layers, rows, tokens, heads, width: A, S, f, J, K.
        device, dtype: of the keys and values.

    Attributes:
        per_layer: whether each layer has an eviction queue of its own, as adaptive sinks need under the rules REFERENCE
            and HONEST; else all layers share one.
        paper: whether sinks are adaptive as in the paper.
        k_SRfJK, v_SRfJK: keys and values, a tensor for each layer, so that a layer can move to another rank by itself.
        mean_ASR2D: means of the keys and of the values over each frame's tokens, by which adaptive sinks are compared.
        queue_ASQ: eviction queues, head first.
        slot_ASF: slots of the new frames.

    Raises:
        ModelError: if the sinks leave too few slots for the window, or the window is not a whole number of blocks.
    """

    def __init__(
        self,
        shape: CacheShape,
        rule: Rule,
        *,
        block: int,
        first: int = 2,
        layers: int,
        rows: int,
        tokens: int,
        heads: int,
        width: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        least = shape.sinks + block
        if rule is Rule.REFERENCE:  # the queue's lowest entry: that of the first chunk, or of the second one
            least = max(least, min(2 * first, first + 2 * block))
        if shape.slots < least:
            raise ModelError(
                f"A cache of {shape.slots} slots with {shape.sinks} sinks has no room for {block} rolling frames.",
                "Give it more slots or fewer sinks.",
            )
        if rule is not Rule.REFERENCE and (shape.slots - shape.sinks) % block:
            raise ModelError(
                f"A cache of {shape.slots} slots with {shape.sinks} sinks is no whole number of blocks of {block}.",
                f"Give it a number of slots that is {shape.sinks} more than a multiple of {block}.",
            )
        self.shape, self.rule, self.block, self.tokens = shape, rule, block, tokens
        self.per_layer = shape.threshold is not None and rule is not Rule.ADAPTIVE and block == 1
        self.paper = shape.threshold is not None and rule is Rule.ADAPTIVE
        self.threshold = -1.0 if shape.threshold is None else shape.threshold
        size = (rows, shape.slots, tokens, heads, width)
        self.k_SRfJK = [_by_head(size, device, dtype) for _ in range(layers)]
        self.v_SRfJK = [_by_head(size, device, dtype) for _ in range(layers)]
        compared = shape.slots if self.per_layer or self.paper else 0
        self.mean_ASR2D = torch.zeros((layers, rows, compared, 2, heads * width), device=device)
        places = 2 * shape.slots + 2 * rows
        queues = layers if self.per_layer else 1
        self.queue_ASQ = torch.empty((queues, rows, places), device=device, dtype=torch.int64)
        self.slot_ASF = torch.zeros((queues, rows, shape.slots), device=device, dtype=torch.int64)
        self._first_slot_S1 = torch.arange(rows, device=device)[:, None] * shape.slots
        self._slots_R = torch.arange(shape.slots, device=device)
        self._new: NewFrames | None = None
        # What `begin` computes for the forward. `_where_AN`: the slots of the new frames, as indices into the slots of
        # all rows. `_options_ASG`: the possible ones, if the sinks are compared first.
        self._where_AN = self._options_ASG = torch.empty(0, dtype=torch.int64)
        self._written_SZ = torch.empty(0, dtype=torch.bool)
        self._compares = False
        self._frames = 0
        self._ends_G = torch.arange(shape.sinks + 1, device=device)
        self._make_scratch()
        self.reset()

    def _make_scratch(self) -> None:
        """Tensors in which the layers note how similar their sinks are, and END of the evicted one (0 for none)."""
        layers, rows = self.queue_ASQ.shape[:2]
        device = self.queue_ASQ.device
        self._similar_ASG = torch.full((layers, rows, self.shape.sinks + 1), self.threshold, device=device)
        self._evicted_AS1 = torch.zeros((layers, rows, 1), device=device, dtype=torch.int64)

    @property
    def warms_rows(self) -> bool:
        """Whether rows that no chunk has reached yet start with the cache of row 0, as in the released code."""
        return self.per_layer and self.rule is Rule.REFERENCE

    def reset(self) -> None:
        """Make it equal to a new cache."""
        for tensor in self.tensors().values():
            tensor.zero_()
        self.queue_ASQ.fill_(-1)
        if self.rule is not Rule.REFERENCE:
            ring = range(self.shape.sinks + self.block, self.shape.slots + 1, self.block)
            self.queue_ASQ[:, :, : len(ring)] = torch.tensor(ring, device=self.queue_ASQ.device)

    def tensors(self) -> dict[str, Tensor]:
        """The state, by name."""
        layers = {f"k.{layer}": tensor for layer, tensor in enumerate(self.k_SRfJK)}
        layers |= {f"v.{layer}": tensor for layer, tensor in enumerate(self.v_SRfJK)}
        return layers | self.bookkeeping()

    def bookkeeping(self) -> dict[str, Tensor]:
        """The state without the keys and values: tensors of all layers [A, S, ...]."""
        return {
            "k_mean": self.mean_ASR2D[:, :, :, 0],
            "v_mean": self.mean_ASR2D[:, :, :, 1],
            "queue": self.queue_ASQ,
            "slot": self.slot_ASF,
        }

    def from_row(self, first: int) -> KVCache:
        """A view of the rows from `first` on: its row 0 is row `first` of this cache."""
        view = copy.copy(self)
        view.k_SRfJK, view.v_SRfJK = ([tensor[first:] for tensor in held] for held in (self.k_SRfJK, self.v_SRfJK))
        view.mean_ASR2D = self.mean_ASR2D[:, first:]
        view.queue_ASQ, view.slot_ASF = self.queue_ASQ[:, first:], self.slot_ASF[:, first:]
        return view

    def layer(self, index: int) -> list[Tensor]:
        """The tensors of one layer, without those that all layers share; for `load_layers`."""
        own = [self.mean_ASR2D, self.queue_ASQ, self.slot_ASF] if self.per_layer else [self.mean_ASR2D]
        kept = (held[index].permute(3, 0, 1, 2, 4) for held in (self.k_SRfJK, self.v_SRfJK))  # contiguous: J S R f K
        return [*kept, *(tensor[index] for tensor in own)]

    def load_layers(self, layers: list[list[Tensor]]) -> None:
        """Replace all layers by these, in order. This is the only call that moves the cache to other addresses.

        Keys and values are not copied. The lists are emptied.
        """
        self.k_SRfJK, self.v_SRfJK = (
            [layer.pop(0).permute(1, 2, 3, 0, 4) for layer in layers] for _ in ("keys", "values")
        )
        for name in ("mean_ASR2D", "queue_ASQ", "slot_ASF") if self.per_layer else ("mean_ASR2D",):
            setattr(self, name, torch.stack([layer.pop(0) for layer in layers]))
        if self.per_layer:
            self._make_scratch()

    def copy_row(self, source: int, target: int) -> None:
        """Copy all of row `source` to row `target`."""
        for tensor in (*self.k_SRfJK, *self.v_SRfJK):
            tensor[target].copy_(tensor[source])
        for tensor in self.bookkeeping().values():
            tensor[:, target].copy_(tensor[:, source])

    def begin(self, new_frames: NewFrames, frames: int) -> None:
        """Prepare for a forward of `len(new_frames.number_S)` rows with `frames` new latent frames each."""
        self._new, self._frames = new_frames, frames
        rows = len(new_frames.number_S)
        # The longer first chunk is not compared with sinks, and a further step of a chunk keeps its slots.
        self._compares = bool(self.mean_ASR2D.shape[2] and self.shape.sinks) and frames == self.block
        self._compares = self._compares and not new_frames.again
        if not new_frames.again:
            self._update_queues()
        if self._compares:
            self._written_SZ = self._slots_R[: self.shape.sinks] < new_frames.number_S[:, None]
        if self.per_layer and self._compares:
            self._options_ASG = self._slot_options(rows)
            return
        if not new_frames.again:
            self._choose_slots(None)
        self._where_AN = (self._first_slot_S1[:rows] + self.slot_ASF[:, :rows, :frames]).flatten(1)

    def turn(self, new_frames: NewFrames, frames: int) -> KVCache:
        """This cache, prepared for one of several chunks of a forward, which take turns in this order (`InTurns`)."""
        view = copy.copy(self)
        view.begin(new_frames, frames)
        return view

    def coming(self, frames: int) -> list[Tensor]:
        """Views of the keys and values that the next new frames may overwrite in row 0 of a full cache.

        The host waits for the device.
        """
        ends = self.queue_ASQ[:, 0, 0].tolist()
        sinks = self.shape.sinks if self.mean_ASR2D.shape[2] else 0
        views = []
        for layer, held in enumerate(zip(self.k_SRfJK, self.v_SRfJK, strict=True)):
            end = ends[layer if self.per_layer else 0]
            views += [tensor[:1, slots] for tensor in held for slots in (slice(end - frames, end), slice(sinks))]
        return views

    def append(self, layer: int, k_SLJK: Tensor, v_SLJK: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store a layer's keys and values [S, F f, J, K] of the new frames.

        Returns:
            The keys and values to attend to, [S, visible f, J, K] views of the cache, and a mask (bool
            [S, 1, 1, visible f], True for written slots) if some rows have written fewer, else None.
        """
        new_frames, rows, frames = self._current(), k_SLJK.shape[0], self._frames
        k_SRfJK, v_SRfJK = self.k_SRfJK[layer][:rows], self.v_SRfJK[layer][:rows]
        means_SF2D = _frame_means(k_SLJK, v_SLJK, frames) if self.mean_ASR2D.shape[2] else None
        if means_SF2D is not None and self._compares and self.per_layer:
            where_N = self._slot_by_sinks(layer, means_SF2D)
        else:
            where_N = self._where_AN[layer if self.per_layer else 0]
            if means_SF2D is not None and self._compares:
                self._replace_sinks(layer, k_SLJK, v_SLJK, means_SF2D)
        for held, new in ((k_SRfJK, k_SLJK), (v_SRfJK, v_SLJK)):
            held.flatten(0, 1).index_copy_(0, where_N, _by_frame(new, frames).flatten(0, 1).to(held.dtype))
        if means_SF2D is not None:
            self.mean_ASR2D[layer, :rows].flatten(0, 1).index_copy_(0, where_N, means_SF2D.flatten(0, 1))
        mask = None
        if not new_frames.even:
            written_SR = self._slots_R[: new_frames.visible] < (new_frames.number_S[:, None] + frames)
            mask = written_SR.repeat_interleave(self.tokens, dim=1)[:, None, None]
        return k_SRfJK[:, : new_frames.visible].flatten(1, 2), v_SRfJK[:, : new_frames.visible].flatten(1, 2), mask

    def _current(self) -> NewFrames:
        assert self._new is not None, "begin() comes before the first append()"
        return self._new

    def _update_queues(self) -> None:
        """Change the queues as far as it depends on numbers and anchors alone, which are the same in every layer.

        The queues of all layers and rows are updated together, as V = A S rows of one tensor.
        """
        new_frames, frames, shape = self._current(), self._frames, self.shape
        rows, queues = new_frames.number_S.shape[0], self.queue_ASQ.shape[0]
        if self.rule is not Rule.REFERENCE and shape.sinks < self.block:
            return  # neither sinks to anchor nor slots to enqueue
        queue_ASQ = self.queue_ASQ[:, :rows]
        anchor_V, end_V = (
            x_S.expand(queues, -1).flatten() for x_S in (new_frames.anchor_S, new_frames.number_S + frames)
        )
        queue_VQ = eviction_queue.anchor(queue_ASQ.flatten(0, 1), shape.sinks, self.block, anchor_V)
        if self.rule is Rule.REFERENCE:
            entry_V = end_V + frames
            enters_V = (entry_V > shape.sinks) & (entry_V <= shape.slots) & (entry_V != eviction_queue.last(queue_VQ))
            queue_VQ = eviction_queue.push_back(queue_VQ, entry_V, enters_V)
        queue_ASQ.copy_(queue_VQ.unflatten(0, (queues, rows)))

    def _choose_slots(self, evicted_AS: Tensor | None) -> None:
        """Choose the slots of the new frames and advance the queues, all together, as V = A S rows of one tensor.

        Args:
            evicted_AS: END of the adaptive sink to be replaced in each queue, 0 for none; None for fixed sinks.
        """
        new_frames, frames, shape = self._current(), self._frames, self.shape
        rows, queues = new_frames.number_S.shape[0], self.queue_ASQ.shape[0]
        queue_VQ = self.queue_ASQ[:, :rows].flatten(0, 1)
        if evicted_AS is not None:
            evicted_V = evicted_AS.flatten()
            queue_VQ = eviction_queue.push_front(queue_VQ, evicted_V, evicted_V > 0)
        end_V = (new_frames.number_S + frames).expand(queues, -1).flatten()
        full_V = end_V > shape.slots
        head_V = queue_VQ[:, 0]
        popped_VQ = torch.cat((queue_VQ[:, 1:], torch.full_like(queue_VQ[:, :1], -1)), dim=1)
        popped_VQ = eviction_queue.push_back(popped_VQ, head_V, head_V > shape.sinks)
        first_V = torch.where(full_V, head_V, end_V) - frames
        self.queue_ASQ[:, :rows] = torch.where(full_V[:, None], popped_VQ, queue_VQ).unflatten(0, (queues, rows))
        slot_VF = first_V[:, None] + self._slots_R[:frames]
        self.slot_ASF[:, :rows, :frames] = slot_VF.unflatten(0, (queues, rows))

    def _slot_options(self, rows: int) -> Tensor:
        """Where the new frame goes in each queue, as an index into the slots of all rows, by what happens to the sinks.

        Each layer decides during the forward. So that it needs few kernels for it, everything else is computed here
        for all layers together.

        Returns:
            [A, S, 1 + Z]: for no sink to be evicted, and for each of the sinks.
        """
        end_S1 = self._current().number_S[:, None] + 1
        sinks_ASZ = self._ends_G[1:].expand(self.queue_ASQ.shape[0], rows, -1)
        head_ASG = torch.cat((self.queue_ASQ[:, :rows, :1], sinks_ASZ), dim=2)
        return torch.where(end_S1 > self.shape.slots, head_ASG, end_S1) + (self._first_slot_S1[:rows] - 1)

    def _slot_by_sinks(self, layer: int, means_SF2D: Tensor) -> Tensor:
        """Evict the sink that is least similar to the new frame if it is below the threshold.

        Returns:
            The slots of the new frames, as indices into the slots of all rows: [S].
        """
        rows = means_SF2D.shape[0]
        similar_SG = self._similar_ASG[layer, :rows]  # the first column is the threshold: the smallest one wins
        torch.mean(self._similarities(layer, means_SF2D), dim=-1, out=similar_SG[:, 1:])
        if self.rule is Rule.HONEST:
            similar_SG[:, 1:].masked_fill_(~self._written_SZ, 1.0)
        evicted_S1 = self._evicted_AS1[layer, :rows]
        torch.argmin(similar_SG, dim=1, keepdim=True, out=evicted_S1)
        if layer == len(self.queue_ASQ) - 1:
            self._choose_slots(self._evicted_AS1[:, :rows])
        return self._options_ASG[layer].gather(1, evicted_S1).flatten()

    def _similarities(self, layer: int, means_SF2D: Tensor) -> Tensor:
        """Cosines of each sink's mean keys and mean values with those of the newest frame: [S, Z, 2]."""
        rows, sinks = means_SF2D.shape[0], self.shape.sinks
        return cosine_similarity(self.mean_ASR2D[layer, :rows, :sinks], means_SF2D[:, -1:], dim=-1)

    def _replace_sinks(self, layer: int, k_SLJK: Tensor, v_SLJK: Tensor, means_SF2D: Tensor) -> None:
        """Overwrite every written sink whose similarity is below the threshold with the newest frame."""
        rows, sinks = k_SLJK.shape[0], self.shape.sinks
        replaced_SZ = (self._similarities(layer, means_SF2D).mean(-1) < self.threshold) & self._written_SZ
        for held, new in ((self.k_SRfJK[layer], k_SLJK), (self.v_SRfJK[layer], v_SLJK)):
            sinks_SZfJK, newest_S1fJK = held[:rows, :sinks], _by_frame(new, self._frames)[:, -1:].to(held.dtype)
            sinks_SZfJK.copy_(torch.where(replaced_SZ[:, :, None, None, None], newest_S1fJK, sinks_SZfJK))
        means_SZ2D = self.mean_ASR2D[layer, :rows, :sinks]
        means_SZ2D.copy_(torch.where(replaced_SZ[:, :, None, None], means_SF2D[:, -1:], means_SZ2D))


def _by_head(size: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Zeros [S, R, f, J, K] in memory order J S R f K, because attention reads one head after the other."""
    rows, slots, tokens, heads, width = size
    return torch.zeros((heads, rows, slots, tokens, width), device=device, dtype=dtype).permute(1, 2, 3, 0, 4)


def _by_frame(x_SLJK: Tensor, frames: int) -> Tensor:
    """[S, F f, J, K] as [S, F, f, J, K]."""
    return x_SLJK.unflatten(1, (frames, -1))


def _frame_means(k_SLJK: Tensor, v_SLJK: Tensor, frames: int) -> Tensor:
    """Means of keys and values over each frame's tokens, heads concatenated, fp32: [S, F, 2, J K]."""
    rows, _, heads, width = k_SLJK.shape
    means_SF2JK = k_SLJK.new_empty((rows, frames, 2, heads, width), dtype=torch.float32)
    for part, x_SLJK in enumerate((k_SLJK, v_SLJK)):
        torch.mean(_by_frame(x_SLJK, frames), dim=2, dtype=torch.float32, out=means_SF2JK[:, :, part])
    return means_SF2JK.flatten(3)
