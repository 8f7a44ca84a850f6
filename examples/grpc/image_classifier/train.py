"""Trains the classifier on shapes that it draws: python train.py. Writes weights.npz and circle.png beside itself."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pixels import SIDE, normalize

HERE = Path(__file__).parent
CLASSES = ("circle", "cross", "square", "triangle")
HIDDEN = 48


def draw_shape(name: str, random: np.random.Generator) -> bytes:
    """A PNG of one shape of random size, place and colours, with noise."""
    background, colour = random.choice([(255, 40), (30, 220), (200, 90), (0, 255)])
    image = Image.new("L", (96, 96), int(background))
    draw = ImageDraw.Draw(image)
    radius = random.integers(20, 40)
    x, y = (random.integers(radius + 4, 92 - radius) for _ in range(2))
    if name == "circle":
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=int(colour))
    elif name == "square":
        draw.rectangle([x - radius, y - radius, x + radius, y + radius], fill=int(colour))
    elif name == "triangle":
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=int(colour))
    else:
        width = max(6, int(radius * 0.4))
        draw.rectangle([x - radius, y - width // 2, x + radius, y + width // 2], fill=int(colour))
        draw.rectangle([x - width // 2, y - radius, x + width // 2, y + radius], fill=int(colour))
    noisy = np.asarray(image, dtype=np.float32) + random.normal(0, 8, (96, 96))
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "png")
    return out.getvalue()


def make_set(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images, one per row, and their classes."""
    labels = random.integers(0, len(CLASSES), count)
    return np.stack([normalize(draw_shape(CLASSES[label], random)).ravel() for label in labels]), labels


def train(images: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Train a network with one hidden layer by gradient descent on the cross entropy."""
    w1 = random.normal(0, 0.1, (SIDE * SIDE, HIDDEN))
    w2 = random.normal(0, 0.1, (HIDDEN, len(CLASSES)))
    b1, b2 = np.zeros(HIDDEN), np.zeros(len(CLASSES))
    for step in range(3000):
        rows = random.integers(0, len(images), 64)
        x, y = images[rows], labels[rows]
        hidden = np.maximum(x @ w1 + b1, 0)
        scores = np.exp(hidden @ w2 + b2)
        error = scores / scores.sum(axis=1, keepdims=True)
        error[np.arange(len(y)), y] -= 1
        back = (error @ w2.T) * (hidden > 0)
        rate = 0.3 * (1 - step / 3000) / len(y)
        w2 -= rate * hidden.T @ error
        b2 -= rate * error.sum(axis=0)
        w1 -= rate * x.T @ back
        b1 -= rate * back.sum(axis=0)
    return {"w1": w1, "b1": b1, "w2": w2, "b2": b2}


def main() -> None:
    """Train, print the accuracy on images that were not trained on, and write the files."""
    random = np.random.default_rng(7)
    weights = train(*make_set(4000, random), random)
    images, labels = make_set(1000, random)
    scores = np.maximum(images @ weights["w1"] + weights["b1"], 0) @ weights["w2"] + weights["b2"]
    print(f"right on {np.mean(scores.argmax(axis=1) == labels):.1%} of 1000 images it has not seen")
    np.savez(HERE / "weights.npz", classes=CLASSES, **{name: w.astype(np.float32) for name, w in weights.items()})
    (HERE / "circle.png").write_bytes(draw_shape("circle", random))


if __name__ == "__main__":
    main()
