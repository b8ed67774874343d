"""Makes the folder clip/: a tiny CLIP text tower as `transformers` saves one, and what `transformers` makes of a few texts.

Run it by hand (`python tests/data/make_oracle_clip.py`, with transformers 5 installed) only if the format changes. The weights
are float16; the features are worked out in float64 from them.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

FOLDER = Path(__file__).with_name("clip")
TEXTS = ["two people wave at each other", "  One person WAVES,\n the other doesn't wave 3 times ", "café 挥手 🙋", "hug " * 60]
MERGES = ["t w", "tw o</w>", "p e", "o p", "pe op", "peop l", "peopl e</w>", "w a", "v e</w>", "wa ve</w>", "a t</w>", "t h",
          "th e</w>", "e r</w>", "o th", "oth er</w>", "e a", "ea c", "eac h</w>", "h u"]


def vocabulary():
    """Bytes, bytes that end a word, merges, and the two special tokens, in CLIP's order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*alphabet, *(letter + "</w>" for letter in alphabet), *(merge.replace(" ", "") for merge in MERGES),
               "<|startoftext|>", "<|endoftext|>"]
    return {entry: i for i, entry in enumerate(entries)}


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    entries = vocabulary()
    tokenizer = CLIPTokenizer(vocab=entries, merges=[tuple(merge.split()) for merge in MERGES])
    tokenizer.save_pretrained(FOLDER)
    (FOLDER / "tokenizer_config.json").unlink()
    torch.manual_seed(0)
    model = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(entries), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=len(entries) - 2, eos_token_id=len(entries) - 1)).eval()
    for tensor in model.parameters():
        # Larger than the initial weights, so that attention and activation are far from linear.
        torch.nn.init.normal_(tensor, mean=float(tensor.ndim == 1), std=0.3)
    model.half().save_pretrained(FOLDER)
    rows = tokenizer(TEXTS, truncation=True, max_length=77)["input_ids"]
    ids = torch.tensor([row + [0] * (77 - len(row)) for row in rows])
    with torch.no_grad():
        features = model.double()(input_ids=ids).last_hidden_state
    save_file({"ids": ids, "ends": torch.tensor([len(row) - 1 for row in rows]), "features": features.float()},
              FOLDER / "oracle.safetensors")


if __name__ == "__main__":
    main()
