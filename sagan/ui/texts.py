"""Every sentence of the page, in one place."""

TITLE = "SAGAN Explorer"
HEADER = {
    "title": TITLE,
    "what": "A generator that learned to make faces: none of these people exist.",
    "how": "Move over a face to see which places each point looks at while the face is made.",
    "link": "Copy link",
    "copied": "Link copied",
    "copy_by_hand": "Copy this link:",
    "theme": "Light or dark",
}

FACE = {
    "alt": "The current face, {name}",
    "seed": "Seed {seed}",
    "between": "{percent} % from {seed_a} to {seed_b}",
    "download": "Download PNG",
}
SEED = "Seed"
DICE = "New face"
TRUNCATION = "Truncation"
CLASS = "Class"
IGNORED = "Ignored in the link, because it is not valid: {values}."

FACES_TAB = "Faces"
SHEET = {
    "label": "Sheet of faces",
    "face": "Face from seed {seed}",
    "current": "Face from seed {seed}, the current face",
    "waiting": "A face that is being made",
    "help": "Choose a face: it becomes the current one on every tab. Truncation draws all of them towards "
    "the average face.",
    "download": "Download sheet",
    "failed": "The sheet could not be made. Choose another first seed to try again.",
}
FIRST_SEED = "First seed"
SHEET_DICE = "New sheet"
COUNT = "How many"

WALK_TAB = "Walk"
WALK = {
    "label": "The face at this point of the way",
    "strip": "The way from seed A to seed B",
    "step": "Go to {percent} % of the way",
    "a": "A · seed {seed}",
    "b": "B · seed {seed}",
    "play": "Play",
    "pause": "Pause",
    "help": "The way follows the arc between both latents (slerp). Every picture on it is a face too.",
    "failed": "The way could not be made. Choose another seed to try again.",
}
WAY = "From A to B"
SEED_B = "Seed B"
SEED_B_DICE = "New seed B"
SWAP = "Swap A and B"

ATTENTION_TAB = "Attention"
ATTENTION = {
    "picture": "Attention layer {name}. Move with the arrow keys, pin with Enter, unpin with Escape.",
    "layer": "Layer {name}",
    "hover": "Move over the face to see more.",
    "hover_long": "Move over the face: brighter places are those that the marked point attends to. "
    "Click to pin the point; arrow keys move it too.",
    "touch": "Touch the face to see more.",
    "touch_long": "Touch the face: brighter places are those that the marked point attends to. Rest a moment "
    "or start sideways, and the point follows your finger; a swipe up or down scrolls the page.",
    "pinned": "Pinned. Click again or press Escape to let go.",
    "gamma": "gamma",
    "gamma_help": "how much of what it gathers the layer adds",
    "query": "query",
    "best": "strongest key",
    "best_value": "{times} × uniform",
    "entropy": "entropy",
    "entropy_value": "{bits} of {most} bits",
    "spread": "as if spread evenly over {places} of {all} places",
    "scale": "weight, times uniform",
    "curated": "Where to look",
    "curated_seed": "Seed {seed}",
    "spoken": "Layer {name}: strongest key {times} times uniform, entropy {bits} of {most} bits.",
}
OPACITY = "Heatmap opacity"

TRAINING_TAB = "Training"
TRAINING = {
    "strip": "Eight faces at this moment of the training",
    "face": "Face from seed {seed}: show its attention",
    "moment": "Moment of the training",
    "at": "Step {step} · {images} images shown",
    "loading_first": "Loading the film",
    "loading": "Loading the film: {percent} %",
    "failed": "The film could not be loaded. Open another tab and come back to try again.",
    "play": "Play",
    "pause": "Pause",
    "losses": "Losses",
    "d_loss": "discriminator",
    "g_loss": "generator",
    "gammas": "Gamma",
    "metric": "{metric}, lower is better",
    "chart": "{title} at this moment: {values}",
    "axis": "images shown, on a logarithmic scale",
    "help": "The same eight latents all along. Choose a face: it becomes the current one, and you see what "
    "it attends to at this moment.",
    "no_film": "This checkpoint has no film of its faces; training with this program records one.",
}

NO_CHECKPOINT = "There is no face to show yet"
WHAT_TO_DO = (
    "Train a model with `python train.py --data FOLDER --out runs/mine`, then start the page with "
    "`python app.py --checkpoint runs/mine`."
)
CARD = "Model card"
FOOTER = {
    "architecture": "Self-Attention GAN",
    "paper": "Zhang et al. 2018",
    "architecture_link": "https://arxiv.org/abs/1805.08318",
    "licence": "Licences: of the code, see LICENSE",
    "weights": "; of the weights and of the data, see the",
    "card": "model card",
}
FOOTER_SIZE = "{size}×{size} pixels"
FOOTER_SHOWN = "{images:,} images shown in training"
FOOTER_METRIC = "{metric} ({column}) {value}, lower is better"
METRICS = {  # columns of the history; of those that are known the first is shown
    "face_fd": "Fréchet distance of faces",
    "frechet_distance": "Fréchet distance of features",
}

API = {
    "faces": "Faces of `count` seeds from `seed` on (0 follows 2**32 - 1), as PNG pictures.",
    "walk": "`steps` faces along slerp from `seed_a` to `seed_b`, both ends included, as PNG pictures.",
    "attention": "What one point of a face attends to in one layer. `x` and `y` are shares (0 to 1) of the "
    "picture's width and height. Returns the layer's side, the query's position (row * side + column), its "
    "row of weights (it sums to 1), the learned gamma, the strongest key and its weight as times uniform, "
    "and the row's entropy in bits.",
}
