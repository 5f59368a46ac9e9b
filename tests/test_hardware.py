"""Metal and plaster: seen where they are, the same in all films of a study, and no sign of a break."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy import stats

from core.phantoms import anatomy, projection
from core.phantoms.anatomy import Bone
from core.phantoms.hardware import Hardware, Plate, Screw, Wire, draw_hardware, project_hardware
from core.phantoms.plaster import Plaster, project_plaster, width_of
from core.phantoms.views import View
from core.phantoms.worn import Worn

PA, LATERAL = View("PA", 0.0), View("LATERAL", 90.0)
SHAPE = (300, 300)


def frame(per_mm: float = 2.0) -> projection.Frame:
    """A film of 150 x 150 mm, the joint in its middle, fingers up."""
    return projection.Frame(np.array([[per_mm, 0, 150], [0, -per_mm, 150]], float), SHAPE)


def box(low_x, high_x, low_y, high_y) -> np.ndarray:
    return np.array([[low_x, low_y], [low_x, high_y], [high_x, high_y], [high_x, low_y]], float)


def limb(radius_at: float = 0.0) -> SimpleNamespace:
    """A radius of 16 mm width that stands upright, a scaphoid, a finger, and skin 50 mm wide."""

    def bone(name: str, outline: np.ndarray) -> Bone:
        middle = outline[:, 0].mean()
        axis = (np.array([middle, outline[:, 1].min()]), np.array([middle, outline[:, 1].max()]))
        return Bone(name, outline, axis, 8.0, 2.0, 1.0)

    finger = bone("ray 4 bone 2", box(6, 12, 50, 70))
    bones = (bone("radius", box(radius_at - 8, radius_at + 8, -75, 0)), bone("scaphoid", box(-15, -3, 5, 22)), finger)
    return SimpleNamespace(bones=bones, skin=box(-25, 25, -75, 60), ringed=finger)


def at(layer: np.ndarray, x: float, y: float) -> float:
    column, row = frame().place(np.array([[x, y]]))[0].astype(int)
    return float(layer[row, column])


def plate(facing: float = 0.0, **wishes) -> Hardware:
    stations = ((-60.0, 10.0), (-20.0, 10.0))
    settings = {"thickness": 2.0, "holes": (), "screws": (), "metal": 0.5} | wishes
    return Hardware(plates=(Plate("radius", facing, stations, **settings),), name="plate")


def test_plate_is_broad_from_the_front_and_a_thin_line_from_the_side():
    front, side = (project_hardware(plate(), limb(), frame(), view) for view in (PA, LATERAL))
    rows = slice(200, 260)  # y = -25 to -55
    assert (front[rows] > 0.1).sum(axis=1).mean() / 2 == pytest.approx(10, abs=1)
    assert (side[rows] > 0.1).sum(axis=1).mean() / 2 == pytest.approx(2, abs=1)
    # Looked at face on the beam crosses 2 mm of metal, edge on 10 mm.
    assert at(front, 0, -40) == pytest.approx(0.5 * 2, rel=0.05)
    assert side[230].max() == pytest.approx(0.5 * 10, rel=0.35)
    assert not front[:170].any()
    assert not side[:170].any()


def test_plate_lies_on_the_side_it_faces():
    """A palmar plate lies towards +x of a lateral film, a dorsal one towards -x, both on the bone's surface."""
    for facing, sign in ((0.0, 1), (180.0, -1)):
        layer = project_hardware(plate(facing), limb(), frame(), LATERAL)
        columns = np.nonzero(layer[220])[0]
        across = (columns.mean() + 0.5 - 150) / 2
        assert across == pytest.approx(sign * 7.3, abs=1.6)
    moved = project_hardware(plate(), limb(radius_at=10.0), frame(), PA)
    assert at(moved, 10, -40) > 0.9
    assert at(moved, 0, -40) == 0


def test_screw_is_a_disc_from_the_front_and_a_rod_from_the_side():
    screw = Screw(along=-40, aside=0, length=14, rise=0, lean=0, radius=1.5, head=0)
    with_screw, without = (plate(screws=screws) for screws in ((screw,), ()))
    for view, wide, high in ((PA, 3, 3), (LATERAL, 14, 3)):
        layer = project_hardware(with_screw, limb(), frame(), view) - project_hardware(without, limb(), frame(), view)
        rows, columns = np.nonzero(layer > 0.1)
        assert np.ptp(columns) / 2 == pytest.approx(wide, abs=1.5)
        assert np.ptp(rows) / 2 == pytest.approx(high, abs=1.5)


def test_metal_adds_up_to_its_volume_in_every_view():
    """Attenuation summed over the film is metal times volume, whatever the view: nothing is made or lost."""
    wire = Wire("radius", ((0.0, -50.0, -6.0), (0.0, -10.0, 6.0)), 1.0, 0.5)
    wanted = 0.5 * np.pi * np.hypot(40, 12)
    for view in (PA, LATERAL, View("OBLIQUE", 45.0)):
        layer = project_hardware(Hardware(wires=(wire,), name="wires"), limb(), frame(), view)
        assert layer.sum() / 4 == pytest.approx(wanted, rel=0.1)


def test_wire_slants_as_its_view_sees_it():
    wire = Hardware(wires=(Wire("radius", ((-5.0, -50.0, 0.0), (5.0, -10.0, 0.0)), 0.8, 0.7),), name="wires")
    slants = []
    for view in (PA, View("OBLIQUE", 60.0), LATERAL):
        rows, columns = np.nonzero(project_hardware(wire, limb(), frame(), view) > 0.2)
        slants.append(np.polyfit(rows, columns, 1)[0])
    assert slants == pytest.approx([-0.25, -0.125, 0.0], abs=0.02)


@pytest.mark.parametrize("kind", ["ring", "bracelet", "watch", "cannula", "lead", "buttons"])
def test_what_is_worn_shows(kind):
    place, size = {"ring": (0.5, 3.0), "watch": (-35.0, 15.0), "buttons": (-50.0, 5.0)}.get(kind, (-30.0, 1.0))
    layer = project_hardware(Hardware(worn=(Worn(kind, place, size, 3),)), limb(), frame(), PA)
    assert layer.max() > 0.1
    assert (layer < 0).mean() < 0.02
    assert 0 < (np.abs(layer) > 0.05).mean() < 0.15


def tube(**wishes) -> Plaster:
    settings = {"stuff": "plaster", "thickness": 4.0, "padding": 2.0, "facing": 0.0, "arc": 180.0}
    return Plaster(**(settings | {"low": -60.0, "high": 40.0, "seed": 1} | wishes))


def test_cast_is_brightest_at_its_walls_and_ends_where_it_ends():
    layer = project_plaster(tube(), limb().skin, frame(), PA)
    row = layer[150]
    wall = row[90:98].mean()  # 26 to 30 mm from the middle, where the wall of 27 to 31 mm is seen along its length
    assert wall > 1.6 * row[145:155].mean() > 0
    assert not layer[:60].any()
    assert not layer[280:].any()
    assert at(layer, 40, 0) == 0


def test_splint_covers_its_side_alone():
    side = project_plaster(tube(arc=80.0), limb().skin, frame(), LATERAL)[150]
    front = project_plaster(tube(arc=80.0), limb().skin, frame(), PA)[150]
    assert side[200:215].max() > 0.2  # palmar is +x of a lateral film
    assert side[:140].max() == 0
    assert front[110:140].mean() == pytest.approx(front[160:190].mean(), rel=0.3)
    whole = project_plaster(tube(), limb().skin, frame(), PA)[150]
    assert front[145:155].mean() == pytest.approx(whole[145:155].mean() / 2, rel=0.1)


def test_width_of_an_outline_is_worked_by_hand():
    low, high = width_of(np.array([[0, 0], [4, 4], [0, 8], [-2, 4]], float), np.array([2.0, 4.0, 6.0, 99.0]))
    np.testing.assert_allclose(low, [-1, -2, -1, 0], atol=0.01)
    np.testing.assert_allclose(high, [2, 4, 2, 0], atol=0.01)


@pytest.fixture(scope="module")
def drawn():
    made = []
    for seed in range(2000):
        patient = anatomy.draw_patient(np.random.default_rng([1, seed]), None)
        made.append((patient, draw_hardware(np.random.default_rng([2, seed]), patient)))
    return made


def test_hardware_is_as_frequent_as_it_is_said_to_be(drawn):
    metal = sum(item.name != "none" for _, item in drawn)
    casts = sum(item.cast for _, item in drawn)
    assert stats.binomtest(metal, len(drawn), 0.05).pvalue > 0.001
    assert stats.binomtest(casts, len(drawn), 0.09).pvalue > 0.001
    assert {item.name for _, item in drawn} == {"none", "plate", "wires", "plate and wires", "screw"}
    assert all(patient.child is False for patient, item in drawn if item.name == "screw")


def test_name_says_what_is_there(drawn):
    for _, item in drawn:
        assert bool(item.plates) == ("plate" in item.name)
        assert bool(item.wires) == ("wires" in item.name or item.name == "screw")


def test_metal_is_brighter_than_what_surrounds_it(drawn):
    """Every piece of metal in the bones, however it lies, attenuates more than the flesh beside it."""
    metal = [item for _, item in drawn if item.name != "none"][:25]
    for item in metal:
        layer = project_hardware(Hardware(item.plates, item.wires, name=item.name), limb(), frame(), PA)
        if item.name == "plate" and max(plate.stations[-1][0] for plate in item.plates) < -70:
            continue  # a plate further up the shaft than this film shows
        if all(plate.bone == "ulna" for plate in item.plates) and not item.wires:
            continue  # there is no ulna here
        inside = layer > 0.3
        around = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))) > 0
        assert inside.any(), item
        assert layer[inside].mean() > 5 * layer[around & ~inside].mean() - 1e-6
        assert layer.min() > -1e-4
