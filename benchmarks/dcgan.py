"""Distance against seconds: runs of this package, and the DCGAN that one would start from instead.

    python benchmarks/dcgan.py --workdir runs/dcgan --seconds 60 120 240 420
    python benchmarks/dcgan.py --workdir runs/dcgan --seconds 60 120 240 420 --width 32 --batch 16
    python benchmarks/dcgan.py --workdir runs/dcgan --run runs/quickstart

The DCGAN (Radford et al. 2015, arXiv 1511.06434) has the networks and settings of PyTorch's DCGAN
example: five layers of 4x4 kernels with batch normalisation, `--width` channels at 32x32 pixels,
100 latent dimensions, binary cross entropy, Adam with a learning rate of 2e-4 and b1 0.5, batches
of 64. It sees the same training images. After each of `--seconds` of training, samples are compared
with the test images as in recipes.py; `--run` does so for every checkpoint of a run, whose seconds
include its VAE's. PyTorch 2.x is not a dependency: install it by hand.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Iterator

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import recipes
from configs import quickstart
from vaegan_jax import trained, workdir
from vaegan_jax.data import images
from vaegan_jax.report import pictures

LATENT_SIZE = 100

Samples = Iterator[tuple[int, float, np.ndarray]]
"""Of (step, seconds of training, samples uint8 [N, 64, 64, 3])."""


def train(data: images.Images, width: int, batch: int, stops: list[float], seed: int) -> Samples:
    """Trains the DCGAN and yields samples at the given seconds of training."""
    import torch
    from torch import nn

    def generator() -> nn.Sequential:
        layers: list[nn.Module] = []
        channels, stride, padding = LATENT_SIZE, 1, 0
        for multiple in (8, 4, 2, 1):
            features = multiple * width
            layers += [
                nn.ConvTranspose2d(channels, features, 4, stride, padding, bias=False),
                nn.BatchNorm2d(features),
                nn.ReLU(True),
            ]
            channels, stride, padding = features, 2, 1
        return nn.Sequential(
            *layers, nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh()
        )

    def discriminator() -> nn.Sequential:
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, True),
        ]
        for multiple in (1, 2, 4):
            layers += [
                nn.Conv2d(multiple * width, 2 * multiple * width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * multiple * width),
                nn.LeakyReLU(0.2, True),
            ]
        return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 0, bias=False), nn.Flatten(0))

    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)

    def update(optimizer: torch.optim.Optimizer, value: torch.Tensor) -> None:
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    torch.manual_seed(seed)
    g, d = (network().apply(initialise) for network in (generator, discriminator))
    optimizer_d, optimizer_g = (
        torch.optim.Adam(each.parameters(), 2e-4, (0.5, 0.999)) for each in (d, g)
    )
    loss, rng = nn.BCEWithLogitsLoss(), np.random.default_rng(seed)
    real_images = data.train.take(np.arange(len(data.train)))[np.arange(len(data.train))]
    fixed = torch.randn(recipes.SAMPLES, LATENT_SIZE, 1, 1)
    ones, zeros = torch.ones(batch), torch.zeros(batch)
    step, seconds = 0, 0.0
    for stop in stops:
        while seconds < stop:
            began = time.perf_counter()
            x = real_images[rng.integers(len(real_images), size=batch)]
            real = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1
            fake = g(torch.randn(batch, LATENT_SIZE, 1, 1))
            update(optimizer_d, loss(d(real), ones) + loss(d(fake.detach()), zeros))
            update(optimizer_g, loss(d(fake), ones))
            step, seconds = step + 1, seconds + time.perf_counter() - began
        with torch.no_grad():  # in training mode, as the example draws its pictures
            drawn = torch.cat([g(z) for z in fixed.split(100)])
        pixels = (127.5 * (drawn.permute(0, 2, 3, 1) + 1)).round().clamp(0, 255)
        yield step, seconds, pixels.to(torch.uint8).numpy()


def read(folder: pathlib.Path) -> Samples:
    """Yields samples of the checkpoints of a run's GAN."""
    metrics = {stage: workdir.Reader(folder).metrics(stage) for stage in ("vae", "gan")}
    before = metrics["vae"][-1]["seconds"] if metrics["vae"] else 0.0
    seconds = {line["step"]: before + line["seconds"] for line in metrics["gan"]}
    for step in trained.steps(folder, "gan"):
        if step in seconds:
            yield step, seconds[step], recipes.sample(folder, step)


def main() -> None:
    """Writes a line of distances and a picture for each point, and prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--run", type=pathlib.Path, help="of this package, instead of a DCGAN")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, nargs="+", default=[60, 120, 240])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    data = images.load(quickstart.get_config().data)
    if args.run:
        name, points = args.run.name, read(args.run)
    else:
        name = f"dcgan_{args.width}_{args.batch}"
        points = train(data, args.width, args.batch, args.seconds, args.seed)
    for step, seconds, fakes in points:
        line = {"name": name, "seed": args.seed, "step": step, "seconds": round(seconds)}
        line |= recipes.evaluate(data, fakes, args.workdir)
        picture = pictures.grid(fakes[:64], 8)
        Image.fromarray(picture).save(args.workdir / f"{name}_{step:06d}.png")
        with (args.workdir / "results.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
