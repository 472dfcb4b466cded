"""One rank of a pipeline other than rank 0: receives messages, runs its blocks, and sends the result to the next rank.

Rank 0 starts the ranks of its own machine. A rank of another machine is started there by hand:

    torchrun --nnodes 2 --node-rank 1 --master-addr HOST --master-port PORT -m engine.distributed.rank

torchrun sets the environment variables from which the rank, the number of ranks and the address are read. HOST and PORT
are the engine's `ring_address`; the variable TIDECAST_RING_SECRET must have the same value on both machines.
"""

from __future__ import annotations

import argparse
import os
import sys

import torch
from torch import Tensor

from engine.distributed.block_shard import BlockShard
from engine.distributed.link import Link, RankLostError, connect
from engine.distributed.lora.rank_loras import RankLoras
from engine.distributed.message import LORA_OPS, Message, Op
from engine.distributed.rendezvous import given_secret, open_store, use_interface_of, verified
from engine.distributed.ring import EXIT_RANK_LOST, Job, split_of
from engine.errors import ModelError
from engine.models import registry
from engine.models.spec import Codec
from engine.network import attention
from engine.network.protocol import keep_blocks
from engine.runtime.metrics import StageTimers
from engine.stream.kv_cache import Rule
from engine.stream.state import new_cache
from engine.stream.timesteps import Sigmas, network_timesteps


class Rank:
    """Builds a rank's shard of the model, as its job describes, and serves messages.

    Args:
        job: the configuration that all ranks share.
        link: the connection to the neighbours.
    """

    def __init__(self, job: Job, link: Link) -> None:
        self.link, self.last, self.tuned = link, link.rank == link.world - 1, job.tuned
        if job.family:
            registry.register(job.family)
        self.spec = registry.get(job.model)
        device, dtype = link.device, getattr(torch, job.dtype)
        if self.tuned:
            torch.backends.cudnn.benchmark = True  # as `engine.runtime.graph_capture.prepare` does in a single process
        builder = registry.builder(self.spec)
        self.split = job.split
        start, end = job.split[link.rank]
        network = builder.build_network(self.spec, torch.device("cpu"), dtype, job.paths())
        keep_blocks(network, start, end)
        network = network.to(device)
        network.fuse()
        cache = new_cache(
            self.spec,
            Rule(job.rule),
            height=job.height,
            width=job.width,
            layers=end - start,
            rows=job.max_steps,
            device=device,
            dtype=dtype,
        )
        h, w = job.height // self.spec.stride, job.width // self.spec.stride
        tables = network.tables(h, w, network_timesteps(self.spec.schedule))
        self.shard = BlockShard(network, cache, tables, job.versions)
        self.loras = RankLoras(self.shard, self.spec.schedule, start)
        self.sigmas = Sigmas(self.spec.schedule, device)
        self.codec: Codec | None = None
        if self.last and job.decodes:
            self.codec = builder.build_codec(self.spec, job.codec, device, dtype, job.paths())
            self.decoder = self.codec.decoder_state(1, job.height, job.width)
        self.timers = StageTimers(device)
        self._decodes = 0
        self._next = 0
        self._pending: dict[int, Tensor] = {}

    @torch.inference_mode()
    def run(self) -> None:
        """Serve messages until a STOP arrives.

        Raises:
            RankLostError: if a neighbour has ended.
        """
        if self.tuned:
            with attention.measuring():
                ended = self._serve(Op.RESET, Op.STOP)  # the warm-up ends with a reset
            if ended is Op.STOP:
                return
        self._serve(Op.STOP)

    def _serve(self, *until: Op) -> Op:
        """Serve messages up to the first of one of these kinds, which is returned."""
        while True:
            message = self.link.receive()
            answers = message.op in (Op.FORWARD, Op.DECODE, Op.TIMES, Op.READY)
            if message.op is Op.FORWARD:
                self._forward(message)
            elif message.op is Op.DECODE and self.last:
                message.parts = [self._decode(message.parts[0])]
            elif message.op is Op.TEXT:
                self.shard.read(message.text, message.parts[0])
            elif message.op in LORA_OPS:
                self.loras.serve(message)
            elif message.op is Op.COPY and message.copy is not None:
                self.shard.cache.copy_row(*message.copy)
            elif message.op is Op.RESET:
                self._reset()
            elif message.op is Op.TIMES:
                message.parts[0][self.link.rank] = torch.tensor([self.shard.seconds(), self._decode_seconds()])
            if answers or not self.last:
                self.link.send(message)
            if message.op is Op.SPLIT:
                new = split_of(message.parts[0])
                self.loras.leave()
                self.shard.resplit(self.link, self.split, new)
                self.loras.arrive(new[self.link.rank][0])
                self.split = new
            if message.op in until:
                return message.op

    def _forward(self, message: Message) -> None:
        """Run this rank's blocks; the last rank also computes the clean latents and decodes the finished chunks."""
        x_SLD, t_S, x_SCFhw = message.parts
        if not message.again:
            self.loras.advance()
        if not self.last:
            message.parts = [self.shard.run(message, x_SLD, t_S), t_S, x_SCFhw]
            return
        frames, height, width = x_SCFhw.shape[2:]
        predicted = self.shard.run(message, x_SLD, t_S, (frames, height, width))
        clean = self.sigmas.clean(x_SCFhw, predicted, self.sigmas.at(t_S)[:, None, None, None, None])
        message.parts = [clean]
        for row, order in enumerate(message.rows):
            if message.finished >> row & 1:
                self._pending[order.number] = clean[row : row + 1]
        if self.codec is not None:
            video = []
            while self._next in self._pending:
                video.append(self._decode(self._pending.pop(self._next)))
            if video:
                message.parts.append(torch.cat(video, dim=1))

    def _decode(self, clean_1CFhw: Tensor) -> Tensor:
        assert self.codec is not None
        self._next += clean_1CFhw.shape[2]
        self._decodes += 1
        with self.timers.stage("decode"):
            return self.codec.decode(clean_1CFhw, self.decoder)[0]

    def _decode_seconds(self) -> float:
        """Mean time of a decode since the last call of this method, in s; 0 on ranks that do not decode."""
        count, self._decodes = self._decodes, 0
        return self.timers.read()["decode"] / 1e3 / max(count, 1)

    def _reset(self) -> None:
        self.shard.cache.reset()
        self._pending.clear()
        self._next = 0
        if self.codec is not None:
            self.decoder.reset()


def end_process(error: Exception) -> None:
    """End this process at once: its GPU has failed, or rank 0 is gone. Then rank 0 stops waiting for its answer."""
    print(f"an answer was lost: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    """Join the ring that rank 0 opened and serve it until it stops."""
    environment = os.environ
    parser = argparse.ArgumentParser(description="Run one further rank of a Tidecast pipeline.")
    parser.add_argument("--rank", type=int, default=int(environment.get("RANK", "0")))
    parser.add_argument("--world", type=int, default=int(environment.get("WORLD_SIZE", "0")))
    parser.add_argument("--address", default=environment.get("MASTER_ADDR", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(environment.get("MASTER_PORT", "0")))
    parser.add_argument("--device", default="")
    args = parser.parse_args()
    if not 0 < args.rank < args.world:
        parser.error(f"rank {args.rank} of {args.world}: rank 0 is the engine itself; choose 1 to world - 1")
    local = environment.get("LOCAL_RANK", "0")
    device = torch.device(args.device or (f"cuda:{local}" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        secret = given_secret()
        use_interface_of(args.address)
        store = open_store(args.address, args.port, args.world, host=False)
        job = Job.loads(verified(store.get("job"), secret))
        if job.threads:
            torch.set_num_threads(job.threads)
        link = connect(args.rank, args.world, device, store, failed=end_process)
        Rank(job, link).run()
        link.close()
    except RankLostError as error:
        print(f"rank {args.rank}: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_RANK_LOST)  # a regular exit would wait for what the GPU still exchanges with the dead rank
    except ModelError as error:
        print(f"rank {args.rank}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
