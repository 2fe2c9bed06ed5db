"""The command ``mask3d``: thin entry points over the library. The only file that may import mask3d_viz, and only to draw."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.prepare import PrepareConfig
from mask3d_core.training.config import pretrain_config
from mask3d_core.models.config import CONTROLS, PRESETS

Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Prepare:
    """Write frames once into a memory-mapped store. Killed at any moment, the same command goes on where it stopped."""

    source: Positional[Literal["rooms", "tum", "folder", "scannet", "nyuv2", "sunrgbd", "cityscapes", "auto"]]
    """Where frames come from; "auto" looks at the folder."""
    path: Positional[str] = ""
    """The recording's folder; not for rooms."""
    out: Path = Path("stores/new")
    """The store's folder."""
    config: tyro.conf.OmitArgPrefixes[PrepareConfig] = field(default_factory=PrepareConfig)
    option: tuple[str, ...] = ()
    """Options of the source as key=value, e.g. count=2000 seed=1 pool=test sensor=0.3 (rooms), config=my.json (folder),
    every=25 split=train (scannet), classes=40 (nyuv2), depth=filled (nyuv2, sunrgbd), splits='["train", "val"]' (cityscapes)."""

    def run(self) -> int:
        """Prepare; print where the store is."""
        from mask3d_core.prepare import prepare

        source = _open(self.source, self.path, _options(self.option))
        for note in source.describe().get("notes", ()):
            print(f"note: {note}")
        store = prepare(source, self.out, self.config)
        header = store.header
        print(f"{self.out}: {header.count} frames of {header.height}x{header.width} from {header.sequences} sequence(s); "
              f"{header.split_rule}")
        print(f"measured pixels {header.valid_share:.1%}; left out as unreadable: {len(header.bad_frames)}")
        return 0


@dataclass(frozen=True)
class Doctor:
    """Say in words what is wrong with a recording or a store, and with this machine."""

    path: Positional[str] = ""
    """A recording's folder or a store; empty: only this machine."""
    sample: int = 64
    """Frames to look at, spread evenly."""
    json: Path | None = None
    """Write the findings here too."""

    def run(self) -> int:
        """0 if nothing is an error, else 1."""
        from mask3d_core.doctor import Report, environment, examine

        reports = [Report("this machine", tuple(environment()))]
        if self.path:
            reports.append(examine(self.path, self.sample))
        print("\n\n".join(report.text() for report in reports))
        if self.json:
            self.json.write_text(reports[-1].to_json())
        return 1 if reports[-1].severity == "error" else 0


@dataclass(frozen=True)
class Pretrain:
    """Pre-train. Ctrl-C saves and stops; the same command resumes. Put torchrun in front for several GPUs."""

    run_folder: Positional[Path]
    """The run folder: log.jsonl, latest.safetensors, previews/, state/."""
    preset: Literal[tuple(PRESETS)] = "tiny"  # type: ignore[valid-type]
    """Size and recipe; "tiny" is the shipped one, "base" the faithful one."""
    control: Literal[tuple(CONTROLS)] = "mask3d"  # type: ignore[valid-type]
    """Mask3D or one of its controls; all are configs of the one model."""
    data: str = "rooms"
    """A prepared store, or "rooms" to render live."""
    init: str = "random"
    """"random", "timm:<name>" (ImageNet weights, needs a network once) or a checkpoint to continue."""
    steps: int | None = None
    """Optimiser steps; none: the recipe's."""
    batch_size: int | None = None
    """Frames per step and process; none: the recipe's."""
    overfit: int = 0
    """Train on this many frames without augmentation, as a sanity check."""
    device: str | None = None
    """"cpu" or "cuda"; none: the GPU if there is one."""
    set: tuple[str, ...] = ()
    """Any other key of the configuration as path=json, e.g. loss.kind='"l1"' fit.learning_rate=0.001 fit.compile=true."""
    dry_run: bool = False
    """Print the whole configuration and stop."""

    def config(self):
        """The configuration that these flags mean."""
        base = pretrain_config(self.preset, self.control, data=self.data, init=self.init, overfit=self.overfit)
        changes = {k: v for k, v in (("steps", self.steps), ("batch_size", self.batch_size)) if v is not None}
        base = replace(base, fit=replace(base.fit, **changes))
        return change_config(base, self.set).validate()

    def run(self) -> int:
        """0 finished, 130 stopped and saved."""
        from mask3d_core.training.config import to_dict
        from mask3d_core.training.pretraining import pretrain

        config = self.config()
        print(json.dumps(to_dict(config)))
        if self.dry_run:
            return 0
        result = pretrain(config, self.run_folder, self.device, on_preview=_draw_preview)
        words = ", ".join(f"{k} {v:.4f}" for k, v in result.metrics.items())
        print(f"{'finished' if result.is_finished else 'stopped'} at step {result.step}: {words}; "
              f"{result.frames_per_second:.0f} frames/s; weights in {self.run_folder}/latest.safetensors")
        return 0 if result.is_finished else 130


@dataclass(frozen=True)
class Plan(Pretrain):
    """Measure a few steps of a run and say what it will cost, before it costs anything. Same flags as pretrain."""

    run_folder: Positional[Path] = Path("-")
    """Not used; may be left out."""
    measure: int = 20
    """Steps to measure."""

    def run(self) -> int:
        """Print the plan."""
        from mask3d_core.plan import make_plan

        print(make_plan(self.config(), self.measure, self.device).text())
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Errors in metres over hidden pixels, beside trivial opponents on the same masks, with intervals."""

    checkpoint: Positional[str]
    """NAME, NAME.safetensors or a run folder."""
    data: str = "stores/new"
    """A prepared store."""
    split: Literal["test", "val", "train", "all"] = "test"
    """Which frames."""
    ratios: tuple[tuple[float, float], ...] = ((0.8, 0.8), (0.8, 0.95), (0.8, 1.0))
    """Pairs: share of RGB hidden, share of depth hidden."""
    draws: int = 3
    """Mask draws per frame."""
    max_depth: float = 10.0
    """Truth beyond this many metres is not scored."""
    limit: int = 0
    """At most this many frames, evenly spaced; 0 = all."""
    allow_seen: bool = False
    """Score frames of the training data too, marked."""
    opponents: bool = True
    """Measure the opponents as well."""
    out: Path | None = None
    """Write the results as JSON."""
    device: str | None = None
    """"cpu" or "cuda"."""

    def run(self) -> int:
        """Print the table; write the JSON."""
        from mask3d_core.evaluation.evaluate import EvaluateConfig, evaluate, table_text
        from mask3d_core.store import Store
        from mask3d_core.files import write_json
        from mask3d_core.progress import Bar
        from mask3d_core.training.checkpoint import load_model
        from mask3d_core.training.precision import parse_device

        model, record = load_model(self.checkpoint)
        config = EvaluateConfig(self.ratios, self.draws, self.split, self.limit, allow_seen=self.allow_seen,
                                max_depth=self.max_depth, opponents=self.opponents)
        with Bar("evaluate", 0) as bar:
            result = evaluate(model, record, Store(self.data), config, parse_device(self.device), bar.set)
        result["checkpoint"]["path"] = str(self.checkpoint)
        print(table_text(result))
        if self.out:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.out, result)
            print(f"written to {self.out}")
        return 0


@dataclass(frozen=True)
class Reconstruct:
    """Hide, predict and write one frame: picture panel, depth as PNG and NPZ, truth and prediction as PLY."""

    checkpoint: Positional[str]
    """NAME, NAME.safetensors or a run folder."""
    frame: Positional[str]
    """FOLDER or STORE with #NUMBER (e.g. recording#12, default #0), or rooms#NUMBER."""
    out: Path = Path("out/reconstruction")
    """Folder for the results."""
    ratios: tuple[float, float] = (0.8, 0.8)
    """Share of RGB and of depth hidden."""
    seed: int = 0
    """Of the masks."""

    def run(self) -> int:
        """Write everything; print the scores."""
        from mask3d_core.reconstruct import reconstruct, write_reconstruction
        from mask3d_core.training.checkpoint import load_model

        model, _ = load_model(self.checkpoint)
        result = reconstruct(model, _frame(self.frame), self.ratios, self.seed)
        written = write_reconstruction(result, self.out)
        from mask3d_viz.reconstruction import save_pictures

        written += save_pictures(result, self.out)
        words = ", ".join(f"{k} {v:.4f}" for k, v in result.scores.items()) or "no hidden pixel was measured"
        print(f"{result.name}: {words}{' (scale assumed: no depth was visible)' if result.is_scale_assumed else ''}")
        print("written: " + ", ".join(str(path) for path in written))
        return 0


@dataclass(frozen=True)
class Export:
    """The RGB encoder as timm weights, and the create_model arguments that load them strictly."""

    checkpoint: Positional[str]
    """NAME, NAME.safetensors or a run folder."""
    timm: Path = Path("out/encoder")
    """OUT.safetensors and OUT.json are written."""

    def run(self) -> int:
        """Export and check."""
        from mask3d_core.models.export import export_timm
        from mask3d_core.training.checkpoint import load_model

        model, record = load_model(self.checkpoint)
        stem = export_timm(model, self.timm, record)
        print(f"{stem}.safetensors loads strictly with timm.create_model(**json['create_model']) from {stem}.json")
        return 0


@dataclass(frozen=True)
class Demo:
    """The main job in about three minutes on a CPU, with one HTML page at the end."""

    frames: str = ""
    """A recording (TUM layout, or colour and depth folders); empty: rendered rooms."""
    out: Path = Path("out/demo")
    """Where everything goes."""
    quick: bool = False
    """A shorter run for tests: few frames, few steps."""

    def run(self) -> int:
        """Run; print where the page is."""
        from mask3d_viz.demo import run_demo

        page = run_demo(self.frames or None, self.out, self.quick)
        print(f"\nOpen {page}")
        return 0


@dataclass(frozen=True)
class Lab:
    """JupyterLab on the first notebook: hide patches, turn the clouds, ask a patch."""

    frames: str = ""
    """A recording or store that the notebooks open; empty: sample rooms."""
    checkpoint: str = ""
    """NAME or a run folder; empty: the checkpoint that ships."""
    session: str = ""
    """A saved session to begin with."""
    folder: Path = Path("lab")
    """Where the notebooks are copied to; those already there are not overwritten."""
    browser: bool = True
    """Open a browser; with --no-browser the address and its token are printed."""
    arguments: tuple[str, ...] = ()
    """One more argument for JupyterLab, e.g. --arguments=--ServerApp.port=9000 (with the equals sign)."""

    def run(self) -> int:
        """Start; ends when JupyterLab does."""
        from mask3d_viz.lab import start_lab

        return start_lab(self.folder, self.frames, self.checkpoint, self.session, self.browser, self.arguments)


@dataclass(frozen=True)
class Finetune:
    """Fine-tune an RGB encoder on a labelled store and score it. Ctrl-C saves and stops; the same command resumes."""

    run_folder: Positional[Path]
    """The run folder: log.jsonl, latest.safetensors, previews/, state/, scores.json."""
    task: Literal["segment", "depth", "detect"] = "segment"
    """Semantic segmentation, monocular depth, or instance segmentation and detection."""
    data: str = "stores/new"
    """A prepared store with labels."""
    start: str = "random"
    """Where the encoder comes from: "random", "timm:<name>", "random:<timm name>", "step-zero:CKPT" or a checkpoint."""
    steps: int | None = None
    """Optimiser steps; none: the recipe's."""
    label_fraction: float = 1.0
    """Share of the training sequences whose labels are used."""
    freeze: int = 0
    """Blocks that do not learn; -1: the whole encoder."""
    select: Literal["last", "best"] = "last"
    """Which weights are scored: the last, or the best on validation."""
    split: Literal["test", "val"] = "test"
    """What is scored at the end."""
    device: str | None = None
    """"cpu" or "cuda"; none: the GPU if there is one."""
    set: tuple[str, ...] = ()
    """Any other key of the configuration as path=json, e.g. head.kind='"dpt"' layer_decay=0.65 fit.ema=0.99."""
    dry_run: bool = False
    """Print the whole configuration and stop."""
    check: bool = False
    """Look at labels, scenes, holes, head, start, memory, time and disk, print what was found and stop."""

    def config(self):
        """The configuration that these flags mean."""
        from mask3d_core.training.finetune_config import finetune_config

        base = finetune_config(self.task, data=self.data, start=self.start, label_fraction=self.label_fraction,
                               freeze=self.freeze, select=self.select)
        if self.steps is not None:
            base = replace(base, fit=replace(base.fit, steps=self.steps))
        return change_config(base, self.set).validate()

    def run(self) -> int:
        """0 finished (or nothing against it), 1 the pre-flight found errors, 130 stopped and saved."""
        from mask3d_core.evaluation.downstream import score_run
        from mask3d_core.training.config import to_dict
        from mask3d_core.training.finetuning import finetune

        config = self.config()
        print(json.dumps(to_dict(config)))
        if self.dry_run:
            return 0
        if self.check:
            return self._check(config)
        result = finetune(config, self.run_folder, self.device, on_preview=_draw_finetuning)
        if not result.is_finished:
            print(f"stopped at step {result.step}; weights in {self.run_folder}/latest.safetensors")
            return 130
        print(score_run(self.run_folder, self.split, self.device, show=True))
        return 0

    def _check(self, config) -> int:
        from mask3d_core.doctor.report import Report
        from mask3d_core.training.preflight import preflight

        report = Report(f"pre-flight of {self.run_folder}", preflight(config, self.device, run=self.run_folder))
        print(report.text())
        return int(report.severity == "error")


@dataclass(frozen=True)
class Predict:
    """A fine-tuned model on a picture or a folder: pictures, class ids as PNG, depth as PNG and NPZ, objects as COCO JSON."""

    checkpoint: Positional[str]
    """NAME, NAME.safetensors or a run folder of `mask3d finetune`."""
    pictures: Positional[Path]
    """A picture, or a folder of pictures."""
    out: Path = Path("out/predictions")
    """Folder for the results."""
    camera: tuple[float, float, float, float] | None = None
    """fx fy cx cy in pixels of the pictures; only depth wants it."""

    def run(self) -> int:
        """Write everything."""
        from mask3d_core.frames import Intrinsics
        from mask3d_core.predict import find_pictures, predict_picture, write_objects, write_prediction
        from mask3d_core.progress import Bar
        from mask3d_core.sources.images import read_color
        from mask3d_core.training.finetuned import load_finetuned
        from mask3d_viz.downstream_view import save_prediction

        model, record = load_finetuned(self.checkpoint)
        camera = Intrinsics(*self.camera) if self.camera else None
        files, written, kept, notes = find_pictures(self.pictures), [], [], []
        with Bar("predict", len(files), unit="picture") as bar:
            for file in files:
                made = predict_picture(model, record, read_color(file), file.stem, camera)
                written += [*write_prediction(made, self.out), save_prediction(made, self.out)]
                notes = list(made.notes)
                if made.objects is not None:
                    kept.append(made.without_picture())
                bar.advance()
        if kept:
            written.append(write_objects(kept, self.out))
        print("\n".join([*notes, f"{len(files)} picture(s): {len(written)} files in {self.out}"]))
        return 0


@dataclass(frozen=True)
class Download:
    """Fetch a data set whose licence allows it, checked and resumable; without a name, list all and say how to get the others."""

    name: Positional[str] = ""
    """Such as tum-fr1-desk; empty: the list."""
    out: Path = Path("downloads")
    """Folder for archives and unpacked recordings."""
    unpack: bool = True
    """Unpack after checking."""

    def run(self) -> int:
        """Print the list, or fetch and say what to do next."""
        from mask3d_core.downloads import catalogue_text, download, find

        if not self.name:
            print(catalogue_text())
            return 0
        entry = find(self.name)
        print(f"{entry.name}: {entry.licence}, cite {entry.cite}\n{entry.url}")
        place = download(entry, self.out, self.unpack)
        print(f"ready: {place}" + ("\nnext: " + entry.prepare.replace("FOLDER", str(place)) if self.unpack else ""))
        return 0


@dataclass(frozen=True)
class Probe:
    """What a frozen encoder holds of the third dimension: depth, normals, semantics, correspondence. About ten CPU minutes."""

    start: Positional[str]
    """"timm:<name>" (any plain VisionTransformer; its weights need a network once), "random:<name>", or a checkpoint."""
    out: Path = Path("out/probe")
    """Folder for the table, the JSON and the figure."""
    data: str = ""
    """A prepared store of yours with train, val and test frames, to measure on beside the bench's rooms."""
    cache: Path | None = None
    """Where the bench's rooms are kept (300 MB, rendered once); none: ~/.cache/mask3d-lab."""
    references: bool = True
    """Rows of the shipped checkpoints and of what they began from."""
    device: str | None = None
    """"cpu" or "cuda", for the encoders."""

    def run(self) -> int:
        """Print the tables; write them, the JSON and the figures."""
        import shlex
        import time

        from mask3d_core.evaluation.bench import rooms_frames, store_frames
        from mask3d_core.evaluation.bench.report import open_bench, record_of, run_bench
        from mask3d_core.files import write_json
        from mask3d_core.progress import Bar
        from mask3d_core.training.precision import parse_device
        from mask3d_viz.bench_view import save_bench

        device, bench = parse_device(self.device), open_bench(self.start, references=self.references)
        mine = store_frames(self.data) if self.data else None  # a wrong store is known before anything is rendered
        if bench.missing:
            print(f"rows left out, their checkpoints are not here: {', '.join(bench.missing)}")
        for name, frames in (("bench", rooms_frames(self.cache)), *([(f"store-{mine.name}", mine)] if mine else [])):
            began, began_cpu = time.perf_counter(), time.process_time()
            with Bar(f"probe on {name}", 0) as bar:
                def progress(row: str, done: int, total: int, bar: Bar = bar) -> None:
                    bar.note(row)
                    bar.set(done, total)

                result = run_bench(bench, frames, device=device, progress=progress)
            record = record_of(result, shlex.join(["mask3d", *sys.argv[1:]]), bench.start, time.perf_counter() - began,
                               time.process_time() - began_cpu)
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / f"{name}.json", record)
            (self.out / f"{name}.txt").write_text(result.text() + "\n", encoding="utf-8")
            drawn = save_bench(record, self.out / name)
            print(f"{result.text()}\n\n{record['seconds']:.0f} s (of one core {record['cpu_seconds']:.0f}); written: "
                  f"{self.out / name}.json, .txt, {', '.join(str(path) for path in drawn)}\n")
        return 0


@dataclass(frozen=True)
class Study:
    """What did pre-training buy? Starts x label fractions x seeds, chosen fairly on validation, with intervals. Resumable."""

    name: Positional[Literal["primary", "starts", "depth", "factors", "ratios"]] = "primary"
    """Which study; "primary" is the one whose endpoint was named before it ran, the others are exploratory."""
    folder: Path = Path("runs/study")
    """Run folders and rooms."""
    record: Path | None = None
    """Where results are kept; none: results/study_NAME.runs.jsonl."""
    workers: int | None = None
    """Runs at a time; none: one per core."""
    device: str | None = None
    """"cpu" or "cuda"; none: the GPU if there is one."""
    plan: bool = False
    """Measure a few steps, print runs and time, and stop."""
    budget: float | None = None
    """Minutes that it may take: fewer seeds, then fewer steps, are planned until it fits."""
    report: bool = False
    """Run nothing: read what is there, print the table, write the figure."""
    set: tuple[str, ...] = ()
    """Any key of the study as path=json, e.g. seeds=3 rooms.train_rooms=500."""

    def run(self) -> int:
        """0 whole, 130 something is left."""
        import os

        from mask3d_core.study.budget import fit_budget, measure
        from mask3d_core.study.config import STUDIES
        from mask3d_core.study.runner import Study as Running

        config = change_config(STUDIES[self.name], self.set).validate()
        workers = self.workers or max(1, os.cpu_count() or 1)
        if self.plan or self.budget is not None:
            cost = measure(config, self.device, workers)
            cut: list[str] = []
            if self.budget is not None:
                cost, cut = fit_budget(cost, self.budget)
            print("\n".join([cost.text(), *cut]))
            config = cost.config
            if self.plan:
                return 0
        study = Running(config, self.folder / config.name, self.record or Path(f"results/study_{config.name}.runs.jsonl"),
                        self.device, workers)
        if self.report:
            study.prepare()
            is_whole = study.status()["done"] >= study.status()["all"]
        else:
            is_whole = study.run()
        _report_study(study)
        return 0 if is_whole else 130


COMMANDS = {"demo": Demo, "lab": Lab, "download": Download, "doctor": Doctor, "prepare": Prepare, "plan": Plan,
            "pretrain": Pretrain, "evaluate": Evaluate, "reconstruct": Reconstruct, "export": Export, "finetune": Finetune,
            "predict": Predict, "probe": Probe, "study": Study}


def _options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """key=value pairs; values are JSON where they parse as JSON."""
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"an option must look like key=value; got {pair!r}")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def change_config(config: Any, changes: tuple[str, ...]) -> Any:
    """Replace keys of a nested configuration.

    Args:
        config: a frozen dataclass.
        changes: "path.to.key=json".

    Raises:
        ConfigError: unknown keys or values of the wrong type, all at once.
    """
    from mask3d_core.training.config import from_dict, to_dict

    values = to_dict(config)
    problems = []
    for path, value in _options(changes).items():
        *parents, key = path.split(".")
        place: Any = values
        for name in parents:
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, dict) or key not in place:
            problems.append(f"unknown key {path}")
        else:
            place[key] = value
    if problems:
        raise ConfigError(problems, "--set")
    return from_dict(type(config), values, "--set")


def _open(kind: str, path: str, options: dict[str, Any]):
    from mask3d_core.sources import how_to_get, open_source
    from mask3d_core.sources.opening import kind_of

    if kind == "rooms":
        if path:
            raise ConfigError(f"rooms are rendered and have no path; got {path!r}. Give options, e.g. --option count=2000")
        return open_source("rooms", **options)
    if not path:
        said = "" if kind == "auto" else how_to_get(kind)
        raise ConfigError(f"source {kind!r} needs the recording's folder: mask3d prepare {kind} PATH --out STORE"
                          f"{'. ' if said else ''}{said.removesuffix('.')}")
    return open_source(kind_of(path) if kind == "auto" else kind, path, **options)


def _frame(text: str):
    """The frame that FOLDER#NUMBER names."""
    from mask3d_core.sources import open_source
    from mask3d_core.sources.opening import open_path

    place, _, number = text.partition("#")
    if number and not number.isdigit():
        raise ConfigError(f"a frame is FOLDER#NUMBER; got {text!r}")
    index = int(number or 0)
    held_out = {"seed": 99, "pool": "test", "views_per_room": 1}  # rooms that no recipe trains on
    source = open_source("rooms", count=index + 1, **held_out) if place == "rooms" else open_path(place)
    if index >= len(source):
        raise ConfigError(f"{place} has {len(source)} frames, so the number must be below that; got {index}")
    return source.read(index)


def _report_study(study) -> None:
    """The table, the findings as JSON beside the record, and the figure."""
    from mask3d_core.files import write_json
    from mask3d_core.study.analysis import as_values, findings, text_of
    from mask3d_core.study.record import described
    from mask3d_viz.pixels import save_png
    from mask3d_viz.study_view import study_image

    found = findings(study)
    print(text_of(found))
    base = study.record.with_name(study.record.name.removesuffix(".runs.jsonl"))
    write_json(base.with_name(base.name + ".json"), {**as_values(found), **described(study)})
    for theme in ("light", "dark"):
        save_png(study_image(as_values(found), theme=theme), base.with_name(f"{base.name}{'' if theme == 'light' else '_dark'}.png"))
    print(f"written to {base}.json and {base}.png")


def _draw_preview(run: Path, step: int) -> None:
    """Draw the fixed frames of a run beside their arrays, and its curve so far."""
    from mask3d_viz.reconstruction import draw_run

    draw_run(run, step)


def _draw_finetuning(run: Path, step: int) -> None:
    """Draw the fixed validation frames of a fine-tuning run."""
    from mask3d_viz.downstream_view import draw_finetuning

    draw_finetuning(run, step)


def main(arguments: list[str] | None = None) -> int:
    """Run one command. 0 done, 1 findings, 2 a wrong input (one line), 130 stopped and saved."""
    union = Union[tuple(Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)]  # noqa: UP007
                        for name, kind in COMMANDS.items())]
    command = tyro.cli(union, prog="mask3d", args=arguments, description=(
        "Mask3D: masked RGB-D pre-training that teaches a plain 2D vision transformer the third dimension."))
    try:
        return command.run()
    except Mask3DError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except OSError as problem:
        if problem.errno is None:
            raise
        print(f"error: {problem.filename or 'a file'}: {problem.strerror}. Check the path, its permissions and the free "
              "space on that disk.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
