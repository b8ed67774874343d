"""Sentences for composed clips: several phrasings a kind and variant, neutral and from either side's view.

{hand0} and {hand1} are the hands ("left", "right") that person 0 and person 1 use.
"""

from __future__ import annotations

TEXTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("handshake", "answered"): (
        "two people shake hands",
        "two people meet and shake hands",
        "one person walks up to the other and they shake hands",
        "a person offers the {hand0} hand and the other takes it",
        "they greet each other with a handshake",
        "one person holds out a hand, the other person shakes it",
        "one person approaches, holds out a hand, and the partner shakes it",
        "the two clasp {hand0} hands and shake them up and down",
    ),
    ("handshake", "refused"): (
        "one person offers a handshake but the other does not take it",
        "a person holds out the {hand0} hand and is left hanging",
        "one person reaches out to shake hands, the other refuses",
        "the partner ignores the offered hand",
        "someone offers a hand, the other one keeps both arms down",
        "an offered handshake is not answered",
    ),
    ("high_five", "answered"): (
        "two people high-five",
        "two people give each other a high five",
        "one person raises the {hand0} hand and the other slaps it",
        "they clap their raised hands together",
        "a person asks for a high five and the other answers it",
        "the two friends high-five at head height",
        "one person lifts a hand, the partner hits it with the {hand1} palm",
    ),
    ("high_five", "refused"): (
        "one person raises a hand for a high five and gets no answer",
        "a person offers a high five but the other leaves them hanging",
        "someone holds the {hand0} hand up, the other does not clap it",
        "the partner ignores the high five",
        "an offered high five is not answered",
        "one person waits with a raised hand, the other just looks",
    ),
    ("wave", "answered"): (
        "two people wave at each other",
        "one person waves and the other waves back",
        "a person waves with the {hand0} hand, the other answers with the {hand1} hand",
        "they greet each other with a wave",
        "someone waves hello and the partner returns the wave",
        "the person sees the other waving and waves back",
        "one waves first, the other replies with a short wave",
    ),
    ("wave", "refused"): (
        "one person waves but the other does not wave back",
        "a person waves with the {hand0} hand and gets no answer",
        "someone waves hello, the other only looks",
        "the partner does not return the wave",
        "one person waves in vain",
        "a wave is left unanswered",
    ),
    ("follow", "behind"): (
        "one person walks and the other follows",
        "a person follows the other at a distance",
        "two people walk one behind the other",
        "the leader walks ahead and the partner keeps the distance",
        "one walks away, the other walks after",
        "someone is followed by another person, who stops when they stop",
        "the follower keeps a constant gap to the person in front",
    ),
    ("follow", "retreat"): (
        "one person steps toward the other, who backs away to keep the distance",
        "a person advances and the other steps back",
        "the partner retreats as the person comes closer",
        "one comes nearer, the other backs off",
        "someone walks at the other, who gives way backward",
        "one person keeps the distance by stepping backward",
    ),
    ("mirror", "gesture"): (
        "one person moves and the other mirrors the movement",
        "two people play the mirror game",
        "a person gestures with the arms and the partner imitates it",
        "the other copies every move as in a mirror",
        "one leads with the arms, the other follows like a mirror image",
        "someone makes gestures, the person opposite imitates them",
        "they face each other and one copies the other",
    ),
    ("punch", "block"): (
        "one person punches and the other blocks",
        "a person throws a {hand0} punch, the other blocks it with the {hand1} hand",
        "two people spar, one strikes and the other parries",
        "the partner catches the punch with an open hand",
        "one attacks with the fist, the other defends",
        "someone punches at the other, who blocks in time",
        "they fight: a punch and a block",
    ),
    ("punch", "dodge"): (
        "one person punches and the other dodges",
        "a person throws a {hand0} punch, the other leans out of the way",
        "the partner ducks aside to avoid the fist",
        "two people spar, one strikes and the other evades",
        "one swings a punch, the other moves aside",
        "someone punches at the other's head and misses because they dodge",
        "they fight: a punch and a dodge",
    ),
    ("push", "stumble"): (
        "one person pushes the other, who stumbles back",
        "a person shoves the other with both hands",
        "someone is pushed and takes a few steps back to keep balance",
        "the partner stumbles backward after a push",
        "one pushes the other's shoulders, the other staggers",
        "two people quarrel and one shoves the other away",
        "a push makes the other person step back",
    ),
    ("push", "braced"): (
        "one person pushes the other, who stands firm",
        "a person shoves the other with both hands but hardly moves them",
        "someone is pushed and braces against it",
        "the partner takes the push without stepping away",
        "one pushes the other's shoulders, the other only sways",
        "a push that the other person withstands",
    ),
    ("bow", "answered"): (
        "two people bow to each other",
        "one person bows and the other bows back",
        "they greet each other with a bow",
        "a person bows politely, the partner bows a little later",
        "the two lower their heads and bend at the hips in greeting",
        "someone bows first, the other returns the bow",
        "a formal bow between two people",
    ),
    ("bow", "refused"): (
        "one person bows, the other does not",
        "a person bows and the partner just stands there",
        "someone bows politely and gets no bow in return",
        "the other one does not return the bow",
        "one bows, the other watches",
        "a bow is not answered",
    ),
    ("ignore", "apart"): (
        "two people ignore each other",
        "two people do not interact",
        "each person minds their own business",
        "one person does not react to the other",
        "two strangers pay no attention to each other",
        "they pass without noticing each other",
        "a person goes about their own things while the other does something else",
    ),
}


# Said only of clips in which somebody walks.
WALKING = ("walks up", "approaches", "they pass")


def texts_for(rng, kind: str, variant: str, sides, walked: bool = True) -> tuple[str, ...]:
    """The phrasings of a kind and variant in a drawn order, with the hands ("left"/"right" or None) filled in."""
    hands = {"hand0": sides[0], "hand1": sides[1]}
    lines = [line for line in TEXTS[kind, variant]
             if all(hands[key] is not None for key in hands if "{" + key + "}" in line)
             and (walked or not any(word in line for word in WALKING))]
    return tuple(lines[i].format(**hands) for i in rng.permutation(len(lines)))
