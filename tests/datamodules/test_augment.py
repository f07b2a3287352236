import numpy as np
import pytest

from datamodules.augment import DefectCrop, Mosaic

SIZE = 70


def sample(defect: bool, value: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red channel says where its mask is."""
    pixels, mask = np.full((SIZE, SIZE, 3), value, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    if defect:
        mask[30:37, 40:52] = 1
        pixels[..., 0] = np.where(mask, 255, 0)
    return pixels, mask


def no_draw():
    raise AssertionError("must not draw")


@pytest.mark.parametrize("augment", [Mosaic(p=1.0), DefectCrop(p=1.0)])
def test_image_and_mask_keep_one_geometry(augment):
    for seed in range(20):
        pixels, mask = augment(*sample(True), lambda: sample(True), np.random.default_rng(seed))
        assert pixels.shape == (SIZE, SIZE, 3)
        assert mask.shape == (SIZE, SIZE)
        assert pixels.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1}
        assert ((pixels[..., 0] > 127) != mask).mean() < 0.01


def test_a_sample_depends_on_its_generator_alone():
    for augment in (Mosaic(p=0.5), DefectCrop(p=0.6)):
        twice = [
            [augment(*sample(True), lambda: sample(True), np.random.default_rng(seed)) for seed in range(30)]
            for _ in range(2)
        ]
        for (a, b), (c, d) in zip(*twice, strict=True):
            np.testing.assert_array_equal(a, c)
            np.testing.assert_array_equal(b, d)


def test_a_mosaic_holds_four_drawn_images():
    values = iter([10, 60, 120, 200])
    pixels, mask = Mosaic(p=1.0)(*sample(True), lambda: sample(False, next(values)), np.random.default_rng(0))
    half = SIZE // 2
    assert [int(np.median(q)) for q in (pixels[:half, :half], pixels[:half, half:])] == [10, 60]
    assert [int(np.median(q)) for q in (pixels[half:, :half], pixels[half:, half:])] == [120, 200]
    assert mask.sum() == 0


def test_how_often_and_what_is_cropped():
    def cropped(defect: bool) -> tuple[int, list[float]]:
        crop = DefectCrop(p=0.6, small=20, large=40, p_small=0.6, p_normal=0.5)
        original = sample(defect)
        made = [crop(*original, no_draw, np.random.default_rng(seed)) for seed in range(400)]
        changed = [m for p, m in made if not (np.array_equal(m, original[1]) and np.array_equal(p, original[0]))]
        return len(changed), [float(m.mean()) for m in changed]

    count, shares = cropped(True)
    assert 200 < count < 280  # 240 expected
    assert min(shares) > 0  # every crop of a defective image holds a defect
    count, _ = cropped(False)
    assert count == 0  # a crop of a constant image is the image

    ramp = np.tile(np.arange(SIZE, dtype=np.uint8)[:, None, None], (1, SIZE, 3))
    crop = DefectCrop(p=0.6, small=20, large=40, p_small=0.6, p_normal=0.5)
    whole = np.zeros((SIZE, SIZE), np.uint8)
    spans = [float(np.ptp(crop(ramp, whole, no_draw, np.random.default_rng(s))[0])) for s in range(400)]
    assert 90 < sum(s < 60 for s in spans) < 150  # 0.6 * 0.5 = 120 expected
    assert all(s > 30 for s in spans)  # never the small window


def test_zero_probability_changes_nothing():
    for augment in (Mosaic(p=0.0), DefectCrop(p=0.0)):
        pixels, mask = augment(*sample(True), no_draw, np.random.default_rng(0))
        np.testing.assert_array_equal(pixels, sample(True)[0])
        np.testing.assert_array_equal(mask, sample(True)[1])
