import pytest

from sagefm import InputError
from sagefm.nn import NETWORKS
from sagefm.pretrain import Recipe
from sagefm.pretrain.recipe import shipped
from sagefm.pretrain.tasks import TASKS


def test_the_published_recipe_has_the_published_values():
    recipe = Recipe.load("published")
    assert recipe == Recipe()
    assert recipe.network.widths == [1024, 512, 512, 512, 1024]
    assert recipe.data.genes == 14_558
    train = recipe.train
    assert (train.mask_fraction, train.batch_size) == (0.3, 64)
    assert (train.learning_rate, train.weight_decay, train.patience) == (5e-5, 1e-4, 10)
    assert (train.schedule, train.warmup_steps, train.clip_norm) == ("plateau", 0, 0.0)
    assert recipe.data.weights == {}  # every spot once an epoch


def test_small_ships_and_is_smaller():
    assert shipped() == ["atlas", "context", "published", "small"]
    small, published = Recipe.load("small"), Recipe.load("published")
    assert small.data.genes < published.data.genes
    assert all(a < b for a, b in zip(small.network.widths, published.network.widths, strict=True))
    assert small.train.mask_fraction == published.train.mask_fraction  # the same task


def test_the_context_recipe_has_values_of_its_own():
    recipe = Recipe.load("context")
    assert (recipe.network.name, recipe.network.widths) == ("context", [256, 512, 512, 128])
    train = recipe.train
    assert (train.mask_fraction, train.missing_fraction, train.batch_size) == (0.3, 0.3, 128)
    assert (train.learning_rate, train.weight_decay, train.clip_norm) == (1e-3, 0.05, 1.0)
    assert (train.schedule, train.warmup_steps, train.max_epochs) == ("cosine", 30, 7)
    assert (train.panel_fraction, train.thin_fraction) == (0.35, 0.2)
    assert recipe.data == Recipe.load("published").data
    assert Recipe.load("published").train.missing_fraction == 0.0


def test_the_atlas_recipe_is_that_of_context_for_many_slides():
    atlas, context = Recipe.load("atlas"), Recipe.load("context")
    assert atlas.network == context.network
    assert isinstance(atlas.data.genes, int)  # chosen from the training slides of a fold
    assert (atlas.data.validation, atlas.data.folds, atlas.data.fold) == ([], 5, 0)
    assert 0 < atlas.data.balance < 1
    assert atlas.train.precision == "float32"
    assert atlas.train.missing_fraction == context.train.missing_fraction


def test_a_fold_is_one_of_the_folds():
    assert Recipe.load("small", ["data.folds=3", "data.fold=3"]).data.fold == 3
    with pytest.raises(InputError, match=r"data\.fold: there are 3 folds \(data\.folds\)"):
        Recipe.load("small", ["data.folds=3", "data.fold=4"])
    with pytest.raises(InputError, match=r"data\.folds: .*greater than or equal to 2"):
        Recipe.load("small", ["data.folds=1"])


def test_every_network_has_a_task():
    assert TASKS.keys() == NETWORKS.keys()


def test_entries_can_be_replaced():
    recipe = Recipe.load(
        "small",
        [
            "train.max_epochs=3",
            "data.genes=genes.txt",
            'data.validation=["B", "C"]',
            "train.seed = 5",
            "data.weights={breast=2, s1=0.5}",
            "data.leave_out=['D']",
            "train.schedule=cosine",
            "train.clip_norm=1",
            "train.precision=bfloat16",
        ],
    )
    assert recipe.train.max_epochs == 3
    assert recipe.train.seed == 5
    assert recipe.data.genes == "genes.txt"
    assert recipe.data.validation == ["B", "C"]
    assert recipe.data.weights == {"breast": 2.0, "s1": 0.5}
    assert recipe.data.leave_out == ["D"]
    assert recipe.train.schedule == "cosine"
    assert recipe.train.clip_norm == 1.0
    assert recipe.train.precision == "bfloat16"


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nbatch_size = 8\n")
    assert Recipe.load(path).train.batch_size == 8
    assert Recipe.load(path).network == Recipe().network


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=3", r"train\.epochs: no such entry; there is .*train\.max_epochs"),
        ("training.seed=3", r"training: no such table; there is network, data, train"),
        ("train.max_epochs=0", r"train\.max_epochs: .*greater than 0"),
        ("train.max_epochs=many", r"train\.max_epochs: .*integer"),
        ("train.mask_fraction=1.5", r"train\.mask_fraction: .*less than 1"),
        ("train.schedule=linear", r"train\.schedule: .*'plateau' or 'cosine'"),
        ("train.precision=half", r"train\.precision: .*'auto', 'float32' or 'bfloat16'"),
        ("train.clip_norm=-1", r"train\.clip_norm: .*greater than or equal to 0"),
        ("train.warmup_steps=0.5", r"train\.warmup_steps: .*integer"),
        ("train.learning_rate=inf", r"train\.learning_rate: .*finite"),
        ("train.weight_decay=nan", r"train\.weight_decay: .*finite"),
        ("train.seed=99999999999999999999", r"train\.seed: .*less than"),
        ("data.patch=10000000000", r"data\.patch: .*less than or equal"),
        ("network.widths=[8,1000000]", r"network\.widths: .*65536"),
        ("train.max_epochs=1979-05-27", r"train\.max_epochs: .*integer"),
        ("train.max_epochs={a=1}", r"train\.max_epochs: .*integer"),
        (f"train.max_epochs={'9' * 5000}", "is no value of TOML .*limit"),
        (f"train.max_epochs={'[' * 9999}{']' * 9999}", "is no value of TOML .*recursion"),
        ("train.seed.x=1", r"train\.seed\.x: no such entry"),
        ("träin.säed=1", "träin: no such table"),
        ("train.save_minutes=-1", r"train\.save_minutes: .*greater than or equal to 0"),
        ("data.weights={breast=0}", r"data\.weights: .*greater than 0"),
        ("data.weights=2", r"data\.weights: .*dictionary"),
        ("data.patch=0", r"data\.patch: .*greater than 0"),
        ("data.leave_out=D", r"data\.leave_out: .*list"),
        ("network.name=unknown", r"network\.name: .*no network 'unknown'; there is published"),
        ("network.widths=[8]", r"network\.widths: .*at least 2"),
        ("train.missing_fraction=0.3", "train: .*missing_fraction is for the network context"),
        ("train.missing_fraction=2", r"train\.missing_fraction: .*less than or equal to 1"),
        ("seed=3", r"write it as table\.entry=value"),
        ("train.seed", r"write it as table\.entry=value"),
    ],
)
def test_bad_entries_are_one_clear_line(override, message):
    with pytest.raises(InputError, match=message) as caught:
        Recipe.load("small", [override])
    assert "\n" not in str(caught.value)


def test_the_context_network_needs_three_widths():
    with pytest.raises(
        InputError, match=r"network\.widths: .*the network context needs at least 3"
    ):
        Recipe.load("context", ["network.widths=[8,8]"])


def test_bad_files_are_one_clear_line(tmp_path):
    with pytest.raises(
        InputError, match="no such recipe; give atlas or context or published or small"
    ):
        Recipe.load("big")
    path = tmp_path / "bad.toml"
    odd = ["[train\n", "[train]\nseed=1\nseed=2", f"a={'[' * 9999}", f"[train]\nseed={'9' * 5000}"]
    for content in [text.encode() for text in odd] + [b"\xff\xfe", bytes(range(256))]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.toml: is not a TOML file") as caught:
            Recipe.load(path)
        assert "\n" not in str(caught.value)
    path.write_text('[train]\n"a\\nb" = 1\n')
    with pytest.raises(InputError, match=r"train\.a\\nb: no such entry") as caught:
        Recipe.load(path)
    assert "\n" not in str(caught.value)
    path.write_text("train = 1")
    with pytest.raises(InputError, match=r"--set train\.seed=2: train is no table"):
        Recipe.load(path, ["train.seed=2"])
    for name in (tmp_path, "x" * 5000, "a\0b"):
        with pytest.raises(InputError, match=r"no such recipe|cannot be read"):
            Recipe.load(name)
    path.write_bytes(b"\xef\xbb\xbf[train]\r\nseed = 3\r\n")  # as Windows writes it
    assert Recipe.load(path).train.seed == 3
