"""Every sentence of the page, in one place."""

TITLE = "SAGAN Explorer"
HEADER = {
    "title": TITLE,
    "what": "A generator that learned to make pictures: nothing they show exists.",
    "what_faces": "A generator that learned to make faces: none of these people exist.",
    "how": "Attention tab: move over the face to see which places each point looks at while it is made.",
    "how_touch": "Attention tab: touch the face to see which places each point looks at while it is made.",
    "link": "Copy link",
    "copied": "Link copied",
    "copy_by_hand": "Copy this link:",
    "theme": "Light or dark",
    "tour": "Tour",
    "tour_title": "A tour of this page and the model behind it, step by step",
}

FACE = {
    "alt": "The current face, {name}",
    "seed": "Seed {seed}",
    "between": "{percent} % from {seed_a} to {seed_b}",
    "download": "Download PNG",
    "none": "No face arrived. Reload the page to try again.",
}
SEED = "Seed"
DICE = "New face"
TRUNCATION = "Truncation"
CLASS = "Class"
NOT_LEARNED = "{name} (no training images)"
IGNORED = "Ignored in the link (invalid, or too many): {values}."
IGNORED_PINS = "{count} of {all} pins"

FACES_TAB = "Faces"
SHEET = {
    "label": "Sheet of faces",
    "face": "Face from seed {seed}",
    "current": "Face from seed {seed}, the current face",
    "waiting": "A face that is being made",
    "help": "Choose a face: it becomes the current one on every tab. A seed determines the latent, the "
    "random numbers a face is made from; neighbouring seeds have nothing in common. Truncation multiplies "
    "the latent: a little below 1, faces are cleaner and more alike; far below, latents are shorter than "
    "any the generator learned from, and faces fall apart.",
    "download": "Download sheet",
    "failed": "The sheet could not be made. Choose another first seed to try again.",
}
FIRST_SEED = "First seed"
SHEET_DICE = "New sheet"
COUNT = "How many"

WALK_TAB = "Walk"
WALK = {
    "label": "Face at this point of the walk",
    "strip": "Walk from seed A to seed B",
    "step": "Go to {percent} % of the way",
    "a": "A · seed {seed}",
    "b": "B · seed {seed}",
    "play": "Play",
    "pause": "Pause",
    "help": "The walk follows the arc between the two latents (slerp): halfway on a straight line, a latent "
    "is shorter than nearly all the generator learned from. Every point of the walk gives a face. Play "
    "shows {frames} of them, one fading into the next.",
    "failed": "The walk could not be made. Choose another seed to retry.",
}
WAY = "From A to B"
SEED_B = "Seed B"
SEED_B_DICE = "New seed B"
SWAP = "Swap A and B"

ATTENTION_TAB = "Attention"
PLACE = "column {column}, row {row}"
ATTENTION = {
    "picture": "Attention layer {name}. Move with the arrow keys, pin with Enter, remove a pin with Delete.",
    "layer": "Layer {name}",
    "hover": "Move over the face to see more.",
    "hover_long": "Move over the face: brighter places are those that the marked point attends to. "
    "Click to pin the point; arrow keys move it too.",
    "hover_backward": "Move over the face: brighter places are those that look at the marked point. "
    "Click to pin the point; arrow keys move it too.",
    "touch_backward": "Touch the face: brighter places are those that look at the marked point. Rest a "
    "moment or start sideways, and the point follows your finger; a swipe up or down scrolls the page.",
    "touch": "Touch the face to see more.",
    "touch_long": "Touch the face: brighter places are those that the marked point attends to. Rest a moment "
    "or start sideways, and the point follows your finger; a swipe up or down scrolls the page.",
    "pinned": "{count} of {most} points pinned. Their maps stay for other faces too; move on to explore, "
    "click a pin to remove it.",
    "pinned_touch": "{count} of {most} points pinned. Their maps stay for other faces too.",
    "full": "No more than {most} points can be pinned. Remove one first.",
    "gamma": "gamma",
    "gamma_help": "how much the layer adds of what it gathers; the sign is arbitrary, only the size counts",
    "query": "query",
    "key": "key",
    "keys": "five strongest keys",
    "queries": "five strongest queries",
    "best": "strongest key",
    "best_backward": "strongest query",
    "best_value": "{times} × uniform",
    "share_value": ", {share} %",
    "next": "next four",
    "next_value": "{next} ×",
    "entropy": "entropy",
    "entropy_value": "{bits} of {most} bits",
    "distance": "mean distance",
    "distance_value": "{distance} px",
    "outside": "outside 3×3",
    "outside_value": "{outside} %",
    "total": "receives in all",
    "total_value": "{total} × average",
    "spread": "as if shared evenly by {places} of {all} places",
    "scale": "weight, times uniform (1/N): one scale for all maps",
    "scale_own": "weight, each map from 0 to its own maximum: {tops} uniform",
    "largest": "max",
    "curated": "Where to look",
    "curated_seed": "Seed {seed}",
    "place": PLACE,
    "spoken": "{name}: query in {here}; strongest key in {there}, {times} times uniform; entropy {bits} of "
    "{most} bits.",
    "spoken_backward": "{name}: key in {here}; strongest query in {there}, {times} times uniform; entropy "
    "{bits} of {most} bits.",
}
LAB = {
    "combined": "Combined",
    "combined_how": "the maps’ mean, weighted by |gamma| alone, on the {side}×{side} grid",
    "combined_picture": "All layers combined. Move with the arrow keys, pin with Enter, remove a pin with "
    "Delete.",
    "average": "the average of {count} faces,",
    "average_top": "up to {times} × uniform",
    "averages_loading": "Loading the average maps: {percent} %",
    "no_averages": "This checkpoint has no average maps. To make them, run python -m sagan.average_maps "
    "--checkpoint FOLDER, then restart the server.",
    "score": "The discriminator’s score: {score}. The higher, the more real this face looks to it; 0 is no "
    "dividing line.",
    "score_known": "When these weights were saved, real pictures scored {real} on average, generated ones "
    "{fake}.",
    "score_known_changed": "When these weights were saved, real pictures scored {real} on average, generated "
    "ones {fake}, all of them changed at random as in training.",
    "failed": "No answer came. Try again.",
    "saving": "Making the file …",
    "view_forward": "what the marked point looks at",
    "view_backward": "who looks at the marked point",
    "tools": "What the maps show",
    "compare": "Compare with",
    "every_face": "every face",
    "save": "Save",
    "save_view": "This view (PNG)",
    "save_png": "Figure for a slide (PNG)",
    "save_svg": "Figure for a slide (SVG)",
    "save_npz": "Raw maps (.npz)",
    "projector": "Projector",
    "projector_off": "Leave projector",
    "pins": "Pins",
    "pins_hint": "Pin up to five points: click the face, or press Enter on it. Each keeps its maps here.",
    "pins_hint_touch": "Pin up to five points: touch the face, then this button. Each keeps its maps here.",
    "pin_here": "Pin this point",
    "pin_most": "Pin what receives most in",
    "pin_most_of": "Pin the five places of layer {name} that receive most",
    "clear": "Clear all",
    "pin": "Pin {number}",
    "pin_show": "Pin {number}, pixel {x}, {y}: show it in the large pictures. {says}",
    "pin_remove": "Remove pin {number}",
    "pin_says": "{name}: {times} ×, {bits} bits",
}
LAB_SWITCHES = {
    "direction": {
        "title": "This point",
        "choices": [
            {"value": "forward", "text": "looks at"},
            {"value": "backward", "text": "is looked at by"},
        ],
    },
    "scale": {
        "title": "Colours",
        "choices": [{"value": "shared", "text": "one scale"}, {"value": "own", "text": "own maximum"}],
    },
    "network": {
        "title": "Network",
        "choices": [
            {"value": "generator", "text": "generator"},
            {"value": "discriminator", "text": "discriminator"},
        ],
    },
}
OPACITY = "Heatmap opacity"
FIGURE_UNIT = ("{layer}, times uniform", "{layer}, who looks at the point, times uniform")
DIALS = {
    "title": "Gamma dials: what attention adds to this face",
    "dial": "gamma {name}",
    "value": "{gamma} = {times} × learned",
    "off": "Off",
    "learned": "Learned",
    "without": "attention off",
    "dialled": "as dialled",
    "as_learned": "unaltered",
    "difference": "difference",
    "amplified": "mean difference {change} of 255 grey levels, drawn × {factor}",
    "amplified_maps": "mean difference {change} of 255 grey levels, drawn × {factor}; {other} from "
    "the picture with “its own”",
    "whose": "Maps or values",
    "maps": {
        "own": "its own",
        "strongest": "strongest",
        "uniform": "uniform",
        "b": "face B’s",
        "masked": "pins out",
        "told": "B at pins",
    },
    "how": {
        "own": "Every place gathers what its query asks for.",
        "strongest": "Every place takes the value of one key alone, its strongest in the unaltered face.",
        "uniform": "Every place gathers from all places alike, as if nobody asked.",
        "b": "Every place looks where the same place of face B, unaltered, looks. It still gathers the "
        "values of this face there: its colours, in the outlines of B. Choose face B on the Walk tab.",
        "masked": "Nobody can look at the pinned places, and the other shares of each map of the unaltered "
        "face grow until they sum to 1 again. Pin the places that receive most, then others.",
        "told": "In the first layer every place looks where it did before, but at the pinned places it finds "
        "the values that they have in the unaltered face B. Do the parts of the picture that look there "
        "take on B’s colours?",
    },
    "no_gammas": "All gammas are 0, so maps change nothing: turn a dial first.",
    "no_pins": "Nothing is pinned, so nothing changes. Pin a place on a picture above.",
    "same": {
        "seed": "Face B is this face. Choose another seed B on the Walk tab.",
        "t": "This face is at the end of the walk, so it is face B. Go back towards A on the Walk tab.",
        "psi": "Face B is this face: with truncation 0 all seeds give the same one. Raise the truncation.",
    },
    "b": "face B unaltered, seed {seed}",
    "help": "The generator makes this face again with other gammas, maps or values. The difference is the "
    "picture as dialled minus the one with attention off; grey is no change. Off is not a GAN without "
    "attention: this generator learned with it and counts on it; one that learned without it draws other "
    "faces. A face may turn pale merely because less is added. Only these pictures change.",
    "failed": "The pictures could not be made. Turn a dial or choose maps to try again.",
}
NUMBERS = {
    "title": "The numbers: how one point is computed",
    "layer": "Layer",
    "where": "Generator, layer {name}, cell in {place} (counted from 0), {width} channels",
    "place": PLACE,
    "formula": "y is x plus gamma times the sum over all keys of softmax of q times k, times v",
    "product": "q times k",
    "hint": "Choose a part of the formula: its numbers light up. For another point, pin it on a picture.",
    "numbers": "The numbers of the computation",
    "key": "five strongest keys",
    "first": "first {count} channels",
    "every": "every channel",
    "weight": "{weight} = {times} × uniform",
    "rest": "These keys hold {percent} % of the weight; the sums run over all {all}.",
    "added": "Over all channels, what is added here is {times} times as long as x. That depends not only on "
    "gamma, but also on how long the values are and on whether they agree.",
    "parts": {
        "y": "y: what leaves the layer at this point.",
        "x": "x: what came into the layer at this point. What attention gathers is added to it; with gamma 0 "
        "it passes unchanged.",
        "gamma": "γ, gamma: one learned number per layer: how much of what attention gathers is added. At 0, "
        "where it starts, q, k and v get no gradient: gamma moves first, and then they learn.",
        "attended": "The sum: what this point gathers from all places, itself included, each value "
        "weighted by its softmax.",
        "weights": "softmax: the logits become shares that sum to 1, anew for each face. This row of shares "
        "is the heatmap of what the point looks at.",
        "q": "q, the query: what this point looks for, a 1×1 convolution of x here.",
        "logits": "q · k, the logit: how well a key answers the query. Transformers divide it by √d, where q "
        "has d numbers, so that more of them do not make softmax sharper; this layer, as in the paper, does "
        "not.",
        "k": "k, the key: what a place offers, a 1×1 convolution of x there.",
        "values": "v, the value: what a place tells those who look at it, a third 1×1 convolution of x "
        "there.",
    },
    "failed": "The numbers could not be computed. Choose another point to try again.",
}

TRAINING_TAB = "Training"
TRAINING = {
    "strip": "Eight faces at this moment of the training",
    "face": "Face from seed {seed}: show its attention",
    "face_plain": "Face from seed {seed}",
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
    "generated": "generated",
    "floor": "real",
    "chart": "{title} at this moment: {values}",
    "axis": "images shown, on a logarithmic scale",
    "help": "Always the same eight latents. Choose a face: it becomes the current one, and you see what "
    "it attends to at this moment.",
    "help_plain": "Always the same eight latents. Choose a face: it becomes the current one.",
    "classes": "The seeds go through the classes in turn.",
    "hinge": "Neither loss has to fall: each network is measured against the other, which learns too. The "
    "generator’s is minus the mean score of its pictures. While scores lie between −1 and 1, the "
    "discriminator’s is 2 minus the difference of the mean scores of real and generated pictures: 2 means "
    "that it scores both alike on average.",
    "fid": "FID: how far what a classifier sees in generated pictures is from what it sees in real ones. "
    "Two sets of real ones differ as well.",
    "inconsistency": "Where training used consistency regularization, the discriminator’s loss contains its "
    "penalty: an image has to keep its score when it is shifted or mirrored.",
    "joined": "Dotted lines: here training went on with higher learning rates again, which disturb what had "
    "settled.",
    "penalty": "The discriminator’s loss contains the gradient penalty.",
    "other_run": "* Another, shorter run of the same recipe: its faces, maps and their gammas, since this "
    "run kept no film at that time; there the same latents give other faces. The curves are of this run.",
    "no_film": "This checkpoint has no film of its faces; training with this program records one.",
}

INSIDE_TAB = "Inside"
INSIDE = {
    "generator": "Generator",
    "generator_how": "from {numbers} random numbers to a face",
    "discriminator": "Discriminator",
    "discriminator_how": "from a face to a score",
    "latent": "latent",
    "numbers": "{numbers} numbers",
    "one_number": "1 number",
    "face": "face",
    "image": "image",
    "score": "score",
    "attention": "attention {side}",
    "kinds": {
        "convolution": "convolution",
        "attention": "◆ attention",
        "image": "convolution",
        "score": "convolution",
    },
    "and_residual": "{kind} +\N{NO-BREAK SPACE}residual",
    "and_residuals": "{kind} +\N{NO-BREAK SPACE}{count}\N{NO-BREAK SPACE}residual",
    "help": "Choose a block to see what the current face looks like in it. Tall boxes have large maps, wide "
    "ones have many; ◆ marks attention.",
    "does": {
        "generator first": "A transposed convolution (it enlarges), batch norm (it sets each map’s mean and "
        "spread) and ReLU (it sets all below 0 to 0) turn the {numbers} numbers of the latent into {maps} "
        "maps of {side}×{side} places.",
        "generator convolution": "A transposed convolution doubles the side: {maps} maps of {side}×{side} "
        "places, each made from only 2×2 places of the block before. Batch norm and ReLU follow, so "
        "nothing is below 0.",
        "generator attention": "Each of the {places} places gathers from all of them. What it gathers, times "
        "gamma, {gamma}, is added to what came in; the shape stays {maps} maps of {side}×{side} places.",
        "generator image": "A last transposed convolution and tanh make three maps of {side}×{side} places, "
        "red, green and blue, from −1 to 1.",
        "discriminator first": "A convolution reads the face: {maps} maps of {side}×{side} places, each made "
        "from 4×4 pixels. Leaky ReLU follows, which shrinks what is below 0 to a tenth.",
        "discriminator convolution": "A convolution halves the side: {maps} maps of {side}×{side} places, "
        "each made from only 4×4 places of the block before. Leaky ReLU follows.",
        "discriminator attention": "Here, too, each of the {places} places gathers from all of them. What it "
        "gathers, times gamma, {gamma}, is added to what came in; the shape stays {maps} maps of "
        "{side}×{side} places.",
        "discriminator score": "A convolution over all of the last maps leaves one number: the higher it is, "
        "the more real the face looks to the discriminator.",
        "projection": "How well the face fits its class is added to it.",
        "residual": "Then a residual block adds what two 3×3 convolutions make of these, times a learned "
        "number. The maps shown come after it: they can be below 0, and each place in them depends on "
        "more of its neighbours.",
        "residuals": "Then {count} residual blocks each add what two 3×3 convolutions make of these, times a "
        "learned number. The maps shown come after them: they can be below 0, and each place in them depends "
        "on more of its neighbours.",
    },
    "chosen": "{network}: {block}",
    "maps": "The first {shown} of {all} maps, each from its own smallest to its own largest value.",
    "all_maps": "All {all} maps, each from its own smallest to its own largest value.",
    "map": "Map {number}: from {low} to {high}",
    "range": "{low} to {high}",
    "flat": "all {low}",
    "smallest": "smallest",
    "largest": "largest value of the map",
    "score_of": "Score {score}",
    "open": "Open in Attention",
    "failed": "The blocks could not be worked out. Choose another face to try again.",
}
SPECTRUM = {
    "title": "Spectral norm",
    "what": "In training the weight W of every convolution (and of the discriminator’s table of classes, "
    "where there are classes) is divided by σ, its largest singular value: the most that W can stretch what "
    "comes in. So no convolution of the discriminator amplifies without limit, and its slope, which the "
    "generator learns from, stays in check. Gammas and the factors of residual blocks are not divided; in "
    "the generator, batch norm resets the scale after most convolutions.",
    "what_generator": "In training the weight W of every convolution of this generator is "
    "divided by σ, its largest singular value: the most that W can stretch what comes in. Batch norm resets "
    "the scale after most convolutions. Gammas and the factors of residual blocks are not divided. The "
    "discriminator of this model was trained without spectral norm.",
    "layer": "Layer",
    "part": "{block}, {part}",
    "parts": {
        "query": "query",
        "key": "key",
        "value": "value",
        "first": "residual {number}, first",
        "second": "residual {number}, second",
        "embedding": "classes",
    },
    "matrix": "Its weight, {shape}, is taken as a matrix with a row for each output: {rows} × {columns}.",
    "values": "Singular values",
    "values_label": "Singular values of {layer}. {said}",
    "before": "before",
    "after": "after",
    "said_both": "The largest was {sigma}, the smallest {least}; divided by {sigma} they are {largest} and "
    "{small}. On this scale the curve moves but keeps its shape.",
    "said_after": "After normalisation the largest is {largest}, the smallest {small}.",
    "one_both": "One output, one singular value: it was {sigma} and is now {largest}.",
    "one_after": "One output, one singular value: normalised, it is {largest}.",
    "waiting": "Computing the singular values …",
    "not_known": "The values before normalisation are not known: this checkpoint keeps only normalised "
    "weights; checkpoints trained now keep them too.",
    "rank": "largest, second largest, and so on; both scales are logarithmic",
    "iteration": "Power iteration",
    "how": "How σ is found without all the others: send a random vector u back and forth through W, and what "
    "W stretches most wins.",
    "why": [
        "Back through W: what W stretches most grows most.",
        "Forth again: u turns towards the first singular vector.",
        "How far W stretches v: the estimate of σ.",
        "Divided by it, the largest singular value comes to 1.",
        "What it bounds: if a patch changes by x, what is made of it changes by no more.",
    ],
    "angle_now": "{angle}° off",
    "divided_now": "largest {largest}",
    "play": "Play",
    "pause": "Pause",
    "step": "Step",
    "again": "New random vector",
    "moment": "Moment of the power iteration",
    "start": "Start: a random vector u",
    "round": "Round {round} of {rounds}, line {line}",
    "done": "After {rounds} rounds, line {line}",
    "angle": "Angle of u to the true vector",
    "angle_label": "u is {angle}° away from the true first singular vector",
    "estimate": "Estimate of σ, by round",
    "estimate_label": "The estimate of σ is {sigma}, {percent} % of the true {truth}",
    "no_estimate": "There is no estimate of σ yet; the true one is {truth}",
    "true_vector": "true",
    "of_truth": "{sigma} of {truth}, {percent} %",
    "none_of_truth": "– of {truth}",
    "note": "In many dimensions a random vector starts at almost 90°. Where other singular values are close "
    "to the largest, the direction takes long to settle, but the estimate is good early, and only σ is "
    "needed. In training one round per use is enough: u is kept, and W changes little between uses. Where W "
    "has one row, as for the discriminator’s score, u is one number and there is nothing to find.",
    "failed": "The layer could not be worked out. Choose another layer to try again.",
}

LESSON_TAB = "Lesson"
TOUR = {
    "label": "Guided tour",
    "count": "Step {number} of {all}",
    "do": "Try it:",
    "see": "What there is to see",
    "back": "Back",
    "next": "Next",
    "finish": "Finish",
    "leave": "Leave",
    "leave_help": "Leave the tour; your face and settings come back",
    "failed": "No answer came. Try again.",
}
LESSON = {
    "title": "How a GAN pays attention, step by step",
    "what": "A tour through this page and the model behind it. Each step takes two or three minutes: "
    "something to read, and something to try. Leave whenever you like: your face and settings come back.",
    "start": "Start the tour",
    "worksheet": "For a class",
    "worksheet_what": "A worksheet with exercises on one page, and the answers on a second one. Its "
    "figures come from the model on this page.",
    "worksheet_open": "Open the worksheet to print it",
    "worksheet_waiting": "The worksheet is being made …",
    "failed": "The worksheet could not be made. Open another tab and come back to try again.",
    "steps": {
        "short_sight": {
            "title": "Convolutions are short-sighted",
            "say": "The generator draws faces from random numbers, the latent; the discriminator scores "
            "them. Convolutions make a place from its closest neighbours, so how one eye turned out hardly "
            "reaches the other. With attention a place gathers from all places in one step: the brighter "
            "one is, the more it counts.",
            "do": "Point at other places and watch “outside 3×3”: the share that one 3×3 convolution "
            "could not have reached. Where is it smallest?",
            "see": "If attention were spread evenly, {even} % of it would lie outside in the {fine} layer. "
            "Where little does, the place looks at itself and its neighbours; or what all places look at "
            "lies next to it.",
        },
        "query_key_value": {
            "title": "Query, key, value",
            "say": "The pinned place asks with its query q. Every place offers a key k, and the product q · "
            "k says how well the two fit. The better they do, the more the pinned place takes of what that "
            "place tells, its value v; the sum of all this is what it gathers.",
            "do": "Choose q, then k, then v in the formula and see which numbers light up. Which of the five "
            "keys fits best?",
            "see": "The one in the first row: keys are listed by q · k, the largest first.",
        },
        "softmax": {
            "title": "Softmax: times uniform",
            "say": "Softmax turns the products into shares that sum to 1. If all N places of a layer counted "
            "alike ({all} in the {fine} layer), each would have 1/N. The page gives a share as a multiple of "
            "that: 8 × uniform is eight times an even share.",
            "do": "Set Colours to “own maximum” and back. The picture changes; which numbers do not? Then "
            "find a point whose strongest key in {fine} is below 8 ×, or as low as you can find.",
            "see": "The numbers under each picture stay: only colours and their scale change. With its own "
            "maximum even a map that is spread over hundreds of places looks sharp.",
        },
        "two_scales": {
            "title": "Two layers, two scales",
            "say": "The {coarse} layer comes first: its cells are {coarse_cell} pixels wide, and it works "
            "on a coarse draft. The {fine} layer comes later, with cells of {fine_cell} pixels. “Combined” "
            "is the mean of both maps, each weighted by the size of its gamma.",
            "do": "Point at places all over the face and compare the layers’ mean distances. Does one look "
            "farther everywhere? (Uniform attention, too, has a larger mean distance from a corner than "
            "from the middle.)",
            "see": "With {face} the {coarse} layer looks farther at {farther} % of the places. Nothing ties "
            "how far a layer looks to the size of its cells.",
        },
        "gamma": {
            "title": "Gamma: from off to learned",
            "say": "Gamma is how much of what attention gathers is added. It starts at 0, so at first "
            "the layer changes nothing; only once it moves can queries, keys and values learn. Here the "
            "dials are off, and the difference is plain grey.",
            "do": "Press Learned beside a dial. What does attention add to this face, and which layer adds "
            "most? Then press it beside all dials and choose face B’s maps: whose outlines do you see?",
            "see": "The grey levels below the difference say which layer adds more. With B’s maps, values "
            "of this face appear in the outlines of B: maps say from where, values say what.",
        },
        "everybody": {
            "title": "What everybody looks at",
            "say": "Five of the {cells} cells of the {coarse} layer receive {share} % of all its attention "
            "in this face ({alike} % if all received alike). They are pinned: the small maps show who looks "
            "at each of them. All who look there find the same value, so the picture agrees on it.",
            "do": "Which part of the face looks at which pin? Then choose “B at pins” in the Gamma dials "
            "below: what do these parts take from face B? Remove pins one by one.",
            "see": "In the face model of this project, parts take much of their colour from the cells "
            "they look at. Here, without the five (“pins out”), the picture changes by {moved} grey "
            "levels. A bright cell need not be about the picture below it.",
        },
        "meaning": {
            "title": "When a map means little",
            "say": "A map near the highest entropy that its layer can have ({bits} bits in {fine}) is "
            "spread over everything, and its brightest place says little. A sharp map says where the layer "
            "looked, not why: attention is not an explanation. A map that all faces share tells of the "
            "place, not of this face.",
            "do": "Switch on “every face” if it is off. Find a point whose map is this face’s own and one "
            "whose map all faces share. An average is blurred even if each map is sharp: compare where peaks "
            "lie.",
            "do_without_average": "Press New face a few times. Find a point whose map changes with the face, "
            "and one whose map stays.",
            "see": "Neither kind is better: a layer may well look at the same places in all faces. But only "
            "where a map changes with the face does it tell of this face.",
        },
        "discriminator": {
            "title": "The discriminator looks too",
            "say": "The discriminator attends as well. It alone sees real pictures, and learns to score "
            "them above the generator’s; the generator learns from its scores. This face’s score stands "
            "below the maps: the higher, the more real it looks.",
            "do": "Press New face a few times. Which face has the highest score? Would you agree?",
            "see": "It need not be the one that you would choose: the discriminator learned to tell "
            "generated faces from real ones, by whatever gives them away, and not to find good ones.",
        },
        "spectral_norm": {
            "title": "Spectral norm keeps the game fair",
            "say": "The generator learns by following the slope of the discriminator’s score, and a slope "
            "that is too steep is of little use. So the weight of every convolution is divided by the most "
            "that it can stretch anything: its largest singular value, found by sending a random vector back "
            "and forth.",
            "do": "Press Play, then move the slider back: after how many rounds is the estimate above 99 %? "
            "Press New random vector and Play again. Is it the same number?",
            "see": "Not always: it depends on where the vector starts. But the estimate only ever grows, and "
            "from nearly any start it comes to the same value.",
        },
    },
}
WORKSHEET = {
    "title": "Self-attention in a GAN",
    "subtitle": "Exercises with SAGAN Explorer. Set the seed to {seed} and truncation to 1{of_class}; “the "
    "point” is the pixel in column {x}, row {y}, counted from 0. This link opens both:",
    "of_class": ", the class to “{name}”",
    "name": "Name",
    "date": "Date",
    "answers": "Answers",
    "answers_note": "The figures are those of this checkpoint, computed for this sheet.",
    "print": "Print",
    "exercises": [
        {
            "tab": "Attention",
            "ask": "A 3×3 convolution on the {fine} map makes a place from 9 of {all} places. What share is "
            "that? And what share of the point’s attention lies outside these 9 places (layer {fine})?",
            "answer": "9 / {all} = {nine} %, less at an edge. {outside} % lies outside: attention reaches in "
            "one step what one 3×3 convolution could not.",
        },
        {
            "tab": "Attention, The numbers",
            "ask": "Write down q · k of the strongest and of the fifth strongest key (layer {fine}). Softmax "
            "weighs them in the ratio exp(difference). Compute it and compare with the column softmax.",
            "answer": "{first} and {fifth}: exp({gap}) is about {ratio}. The shares, {first_share} and "
            "{fifth_share}, have the same ratio, because softmax divides all by one sum.",
        },
        {
            "tab": "Attention",
            "ask": "How many times uniform is the point’s strongest key in layer {coarse}, and what share "
            "of all its attention is that? How does one follow from the other?",
            "answer": "{times} × uniform, {share} %: uniform is 1/{coarse_all}, and {times} / {coarse_all} "
            "is that share.",
        },
        {
            "tab": "Attention",
            "ask": "How many pixels wide is a cell of each layer? How many shares does the whole map of a "
            "layer hold, from all places to all places? Why not attend to single pixels?",
            "answer": "{cells}. Single pixels would need {pixel_shares}: the number grows with the fourth "
            "power of the side. These shares are made anew for each face; they are not learned weights. "
            "(What a cell holds reaches beyond its square, as convolutions follow.)",
        },
        {
            "tab": "Attention, Gamma dials",
            "ask": "Turn all dials off. By how many grey levels does the face change on average when only "
            "the {fine} layer is then set to Learned? Why does gamma start at 0 in training?",
            "answer": "By {change} of 255. At 0 the layer changes nothing: it cannot disturb what "
            "convolutions learn first, and training decides how much attention to add. (At 0 queries, keys "
            "and values have no gradient: gamma moves first, and then they learn.)",
        },
        {
            "tab": "Attention",
            "ask": "How many bits of entropy can a map of layer {fine} have at most? How many does the "
            "point’s have? Give a reason why even a sharp map does not explain the face.",
            "answer": "log2({all}) = {bits} bits, when all places count alike; the point’s has "
            "{entropy}. A map shows where the layer looked, but neither what it found (the values) nor what "
            "later layers made of it. And convolutions carry information past it.",
        },
        {
            "tab": "Inside, Spectral norm",
            "ask": "A weight W has the singular values 4, 2 and 1. What are they after spectral norm? At "
            "most how many times as long as x can W x be, before and after?",
            "answer": "1, 0.5 and 0.25: all are divided by the largest. 4 times as long before, 1 time "
            "after. (The patches of a convolution overlap, so a whole layer can still amplify, but "
            "within limits.)",
        },
        {
            "tab": "Attention, Network: discriminator",
            "ask": "Note the discriminator’s scores for seeds 1 to 6. Which face looks most real to it, "
            "and which to you? What does each network learn to do with such scores? Is one below 0 bad?",
            "answer": "{scores}. The highest has seed {best}. The generator learns to raise them; the "
            "discriminator learns to lower them, and to raise those of real pictures. 0 is no dividing "
            "line: real pictures can be below it too. Neither network judges as we do.",
            "of_scores": "yes",
        },
    ],
}

TOO_BUSY = "Too many requests are waiting: try again in a moment."
LONG_SESSION = "A session name may have at most {most} characters."
NO_FILES = "This page takes no files."
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
    "licence": "Licences: for code, see LICENSE",
    "weights": "; for weights and data, see the",
    "card": "model card",
}
FOOTER_SIZE = "{size}×{size} pixels"
FOOTER_SHOWN = "{images:,} images shown in training"
FOOTER_METRIC = "{metric} {value}, lower is better"
FOOTER_METRIC_FLOOR = "{metric} {value} (other real images: {floor}), lower is better"
FOOTER_METRIC_THEN = " after {images:,} images"
METRICS = {  # columns of the history; runs write the last one, the others are entered by hand
    "fid": "FID",
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
