"""`tidecast models`: list models and their memory, download and check their files, encode prompts in advance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from bridge.cli.card import SPARE, gpu_presets
from bridge.cli.size import parse_size
from bridge.cli.terminal import PrintableConsole
from bridge.config_file import load
from bridge.process.engine.choice import lora_folder
from engine.config import Config
from engine.errors import CheckpointError, ModelError
from engine.models import registry, vram, weights
from engine.models.spec import CODECS, ModelSpec, WeightFile
from engine.network.lora.updates import Lora

app = typer.Typer(
    help="Models: list, download, check; encode prompts in advance.", no_args_is_help=True, add_completion=False
)

Folder = Annotated[str, typer.Option("--dir", help="Folder of model files (default: the user's cache folder).")]
Name = Annotated[str, typer.Argument(help="Name of a model, as listed by: tidecast models list")]
GIB = 2**30
WIDTH, HEIGHT, STEPS = 832, 480, 2
VAES = ("full", "light", "tiny")

CARDS = (8, 12, 16, 24, 32, 48, 80)
"""Memory of the usual GPUs, GiB."""

COMPUTED = (
    "Computed from shapes; no GPU was measured. 0.6 GiB of each total, for CUDA itself and gaps, are an estimate."
)


def _out() -> PrintableConsole:
    return PrintableConsole(soft_wrap=True)


@app.command("list")
def list_models(directory: Folder = "") -> None:
    """Show every model: size, memory, licence, and whether its files are present."""
    root = weights.folder(directory)
    table = Table(title=escape(f"Models (files in {root})"), show_lines=True)
    table.add_column("name", overflow="fold", ratio=3)
    for heading in ("download", "GPU memory", "present"):
        table.add_column(heading, no_wrap=True)
    table.add_column("licence", ratio=2)
    for spec in registry.REGISTRY.values():
        name = f"[bold]{spec.name}[/]\n{spec.title}"
        if spec.unverified:
            name += f"\n[dim]{escape(spec.unverified)}[/]"
        table.add_row(name, _size(spec, root), _memory(spec), _here(spec, root), spec.licence or "-")
    out = PrintableConsole()
    out.print(table)
    out.print(
        "Download: includes every autoencoder and the text encoder (10.6 GiB), which models share. "
        f"GPU memory: computed for bfloat16 at {WIDTH}x{HEIGHT} with max_steps = {STEPS}.",
        style="dim",
    )


def _memory(spec: ModelSpec) -> str:
    """GPU memory with each kind of autoencoder, a line each."""
    lines = []
    for vae in VAES:
        needed = vram.need_of(spec, Config(model=spec.name, width=WIDTH, height=HEIGHT, max_steps=STEPS, vae=vae))
        if needed is not None:
            lines.append(f"{needed.gib:.1f} GiB ({vae})")
    return "\n".join(lines) or "-"


@app.command("memory")
def memory(
    size: Annotated[str, typer.Option(help="Width x height in pixels, for the second table.")] = f"{WIDTH}x{HEIGHT}",
    markdown: Annotated[bool, typer.Option(help="Write the tables as docs/operators/presets.md has them.")] = False,
) -> None:
    """Compute the GPU memory of every preset for GPUs, and of every model by autoencoder and max_steps."""
    width, height = parse_size(size)
    presets, models = preset_memory(), model_memory(width, height)
    if markdown:
        print(markdown_table(presets), markdown_table(models), sep="\n", end="")
        return
    out = PrintableConsole()
    out.print(_memory_table("GPU memory of the presets, GiB", presets))
    out.print(_memory_table(f"GPU memory at {width}x{height} by autoencoder and max_steps, GiB", models))
    out.print(COMPUTED, style="dim")


def _memory_table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, padding=0)
    for number, heading in enumerate(rows[0]):
        words = max(map(len, heading.split()))  # a heading may take several lines, a figure only one
        width = max(words, *(len(row[number]) for row in rows[1:]))
        table.add_column(heading, justify="right" if number else "left", width=width)
    for row in rows[1:]:
        table.add_row(*row)
    return table


def preset_memory() -> list[list[str]]:
    """A heading, and a row for each preset for GPUs: the parts of what one GPU needs, GiB, and the GPU that it fits."""
    parts = {"weights": "weights", "cache": "KV cache", "codec": "autoencoder", "pool": "graphs", "work": "temporary"}
    rows = [["preset", *parts.values(), "other", "total", "fits"]]
    for name, (gpus, _) in gpu_presets().items():
        config = load(name).engine
        needed = vram.need_of(registry.get(config.model), config)
        assert needed is not None, f"the memory of {config.model} is not known"
        known = [getattr(needed, part) / GIB for part in parts]
        fits = next((f"{card} GiB" for card in CARDS if needed.gib <= (1 - SPARE) * card), "none")
        rest = needed.gib - sum(known)
        figures = [f"{gib:.1f}" for gib in (*known, rest, needed.gib)]
        rows.append([name, *figures, fits if gpus == 1 else f"{gpus} x {fits}"])
    return rows


def model_memory(width: int, height: int) -> list[list[str]]:
    """A heading, and a row for each model and type of its weights: the total in GiB by autoencoder and `max_steps`."""
    cases = [(vae, steps) for vae in VAES for steps in (1, 2, 4)]
    rows = [["model", "weights", *(f"{vae} {steps}" for vae, steps in cases)]]
    for spec in registry.REGISTRY.values():
        if vram.sizes_of(spec) is None:
            continue
        for weights_dtype in ("auto", "float8"):
            totals = []
            for vae, steps in cases:
                settings = {"width": width, "height": height, "vae": vae, "max_steps": steps}
                config = Config.model_validate({"model": spec.name, "weights_dtype": weights_dtype, **settings})
                needed = vram.need_of(spec, config)
                assert needed is not None
                totals.append(f"{needed.gib:.1f}")
            rows.append([spec.name, "bf16" if weights_dtype == "auto" else weights_dtype, *totals])
    return rows


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The rows, of which the first is the heading, as a Markdown table with figures to the right."""
    ruler = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ruler, *rows[1:])) + "\n"


def _size(spec: ModelSpec, root: Path) -> str:
    if not spec.files:
        return "none"
    total, exact = weights.size(spec.files, root)
    return f"{'' if exact else '~'}{total / GIB:.1f} GiB"


def _here(spec: ModelSpec, root: Path) -> str:
    if not spec.files:
        return "built in"
    found = sum(weights.find(file, root) is not None for file in spec.files)
    return {0: "no", len(spec.files): "yes"}.get(found, f"{found} of {len(spec.files)} files")


def chosen(name: str, vae: str = "all", text: bool = True) -> tuple[ModelSpec, list[WeightFile]]:
    """The row of a model, and those of its files that are wanted."""
    spec = registry.get(name)
    wanted = weights.roles(vae, text=text)
    return spec, [file for file in spec.files if file.role in wanted]


@contextmanager
def progress(what: str) -> Iterator[weights.Report]:
    """A bar for each file; what it gives is called with the progress."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=_out(), transient=True) as bars:
        tasks: dict[WeightFile, int] = {}

        def report(file: WeightFile, done: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(escape(f"{what} {file.path}"), total=total)
            bars.update(tasks[file], completed=done, total=total)  # type: ignore[arg-type]

        yield report


@app.command()
def pull(
    name: Name,
    directory: Folder = "",
    vae: Annotated[str, typer.Option(help="Autoencoder to get: full, light, tiny, light-tiny or all.")] = "all",
    text: Annotated[bool, typer.Option(help="Get the text encoder; prompts encoded in advance need none.")] = True,
) -> None:
    """Download a model's files, resume an interrupted download, and check every file's hash."""
    if vae not in (*CODECS, "all"):
        raise typer.BadParameter(f"choose {', '.join(CODECS)} or all", param_hint="--vae")
    out, root = _out(), weights.folder(directory)
    spec, files = chosen(name, vae, text)
    if not files:
        out.print(f"{spec.name} needs no download.")
        return
    with progress("getting") as report:
        verdicts = weights.pull(files, root, report)
    for verdict in verdicts:
        if verdict.state is weights.State.PINNED_HERE:
            out.print(
                f"first download of {verdict.file.path}: no known hash to compare with; "
                f"pinned as sha256 {verdict.sha256}",
                style="yellow",
            )
    kept = len(files) - len(verdicts)
    out.print(f"{spec.name}: {len(verdicts)} files downloaded to {root}, {kept} were present.", markup=False)


@app.command()
def verify(name: Name, directory: Folder = "") -> None:
    """Compare every file of a model with its known hash; exit code 1 if one is wrong."""
    out, root = _out(), weights.folder(directory)
    spec, files = chosen(name)
    with progress("reading") as report:
        verdicts = weights.verify(files, root, report)
    for verdict in verdicts:
        digest = f" sha256 {verdict.sha256}" if verdict.state is weights.State.UNPINNED else ""
        style = "green" if verdict.state.fine else "red"
        line = Text.assemble((verdict.state.value, style), f" {verdict.path or verdict.file.path}{digest}")
        out.print(line, highlight=False)
    if not files:
        out.print(f"{spec.name} has no files of its own to check.")
    wrong = [verdict for verdict in verdicts if not verdict.state.fine]
    if wrong:
        if any(verdict.state is not weights.State.MISSING for verdict in wrong):
            out.print("Remove the wrong files, then run:")
        out.print(f"tidecast models pull {spec.name}")
        raise typer.Exit(1)


@app.command("lora")
def lora(file: Annotated[Path, typer.Argument(help="LoRA file: .safetensors or .pt")], directory: Folder = "") -> None:
    """Tell what a LoRA file is and which models it fits; exit code 1 if it fits none."""
    from engine.models import lora_file

    out, found = _out(), lora_file.read(file)
    out.print(found.title, style="bold", markup=False)
    facts = {"trigger words": ", ".join(found.triggers), "trained on": found.base}
    out.print(*(f"{name}: {fact}" for name, fact in facts.items() if fact), sep="\n", markup=False)
    fitting: list[str] = []
    reasons: list[str] = []
    known: dict[object, Lora | ModelError] = {}
    for spec in filter(lora_file.takes_lora, registry.REGISTRY.values()):
        if spec.network not in known:
            try:
                known[spec.network] = lora_file.fits(found, spec)
            except ModelError as error:
                known[spec.network] = ModelError(error.message, error.remedy)
        fit = known[spec.network]
        if isinstance(fit, ModelError):
            reasons.append(f"{spec.name}: {fit.message}")
        else:
            fitting.append(spec.name)
            what = f"{len(fit.updates)} weights and biases, rank {', '.join(map(str, fit.ranks)) or 'none'}"
            note = f"{what}{', ' + fit.note if fit.note else ''}"
    if not fitting:
        raise CheckpointError(f"{file} fits no model. {reasons[0]}", "Choose a LoRA for Wan2.1 or Ember.")
    out.print(f"changes: {note}", f"fits: {', '.join(fitting)}", sep="\n", markup=False)
    folder = lora_folder(Config(model=fitting[0], weights_dir=directory))
    out.print(f"On a fader from the start, here for {fitting[0]}, in a folder for each model: {folder}", markup=False)


@app.command("encode-prompts")
def encode_prompts(
    file: Annotated[Path, typer.Argument(help="Text file, one prompt per line; empty lines and # lines are skipped.")],
    model: Annotated[str, typer.Option(help="Model whose text encoder reads them.")] = "wan21-1.3b",
    directory: Folder = "",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    float8: Annotated[
        bool, typer.Option(help='Weights in float8 (half the memory), as text_weights = "float8" in a configuration.')
    ] = False,
) -> None:
    """Encode the prompts of a show in advance, so that the show itself needs no text encoder."""
    import torch

    out = _out()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} cannot be read ({error}).", "Name a text file with one prompt per line.") from None
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.startswith("#")))
    spec = registry.get(model)
    root = weights.folder(directory)
    files: dict[str, Path] = {
        role: path
        for role in ("text", "tokenizer")
        for file_ in spec.files
        if file_.role == role and (path := weights.find(file_, root))
    }
    if not any(file_.role == "text" for file_ in spec.files):
        out.print(f"{spec.name} needs no text encoder; there is nothing to encode in advance.")
        return
    storage = "float8" if float8 else "bfloat16"
    encoder = registry.builder(spec).build_text(spec, torch.device(device), files or {"dit": root}, storage=storage)
    with Progress(console=out, transient=True) as bars:
        for prompt in bars.track(prompts, description="encoding"):
            if trouble := encoder.encode(prompt).trouble:
                raise ModelError(trouble)
    out.print(f"{len(prompts)} prompts are ready for {spec.name}.")
