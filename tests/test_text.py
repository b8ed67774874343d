"""Text: the published head, the BPE tokenizer and encoder, and the prompt cache."""

import copy
import logging

import pytest
import torch
from oracle_weights import oracle_index, recipe
from safetensors.torch import load_file

from rtinteract.config import TextConfig
from rtinteract.errors import CheckpointError, ConfigError, RtInteractError
from rtinteract.text import BOS, EOS, PAD, PromptEncoder, TextEncoder, TextHead, TextTokenizer, train_tokenizer

CORPUS = ["two people shake hands", "one person waves and the other waves back", "they bow to each other"] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CORPUS, 300)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    torch.manual_seed(0)
    vocabulary = TextTokenizer(tokenizer).vocabulary
    config = TextConfig(kind="bpe", width=32, layers=2, heads=4, ff=64, vocabulary=vocabulary, max_tokens=16)
    return TextEncoder(config).eval()


def prompts(encoder, tokenizer, **options):
    return PromptEncoder(encoder.config, encoder, tokenizer, **options)


def test_head_gives_the_published_vectors(shared):
    tensors = load_file(shared / "oracles/text_head.safetensors")
    keys = oracle_index(shared)["state_dict_keys"]["reference-tiny-trans.tar"]
    head = TextHead(TextConfig(kind="clip")).eval()
    head.load_state_dict({k.replace("clipTrans.", "encoder.").replace("clipln.", "norm."): recipe(k, shape, 0)
                          for k, shape in keys["t2m_transformer"].items() if k.startswith("clip")})
    for dtype, name in ((torch.float32, "text_vector"), (torch.float64, "text_vector_f64")):
        with torch.no_grad():
            got = head.to(dtype)(tensors["clip_features"].to(dtype), tensors["eot_index"])
        torch.testing.assert_close(got, tensors[name], rtol=1e-5, atol=1e-5 * float(tensors[name].abs().max()))


def test_tokenizer_ids(tokenizer):
    wrapper = TextTokenizer(tokenizer)
    ids, lengths = wrapper.encode(["Two  people SHAKE hands", "two people shake hands\n", "挥手 🙋"], 40)
    assert torch.equal(ids[0], ids[1]) and lengths[0] == lengths[1], "case and white space do not matter"
    for row, length in zip(ids.tolist(), lengths.tolist(), strict=True):
        assert row[0] == BOS and row[length - 1] == EOS and all(i == PAD for i in row[length:])
        assert all(i > 3 for i in row[1:length - 1]), "any text is made of known entries"
    assert lengths[2] > 4 and wrapper.vocabulary <= 300


def test_tokenizer_is_a_function_of_its_texts(tokenizer):
    assert train_tokenizer(reversed(CORPUS), 300) == tokenizer


def test_special_tokens_in_a_prompt_are_plain_text(tokenizer):
    ids, lengths = TextTokenizer(tokenizer).encode(["a <eos> b"], 40)
    assert (ids == EOS).sum() == 1 and ids[0, lengths[0] - 1] == EOS


def test_tokenizer_cuts_with_a_warning(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        ids, lengths = TextTokenizer(tokenizer).encode(["wave " * 50], 16)
    assert ids.shape == (1, 16) and lengths.tolist() == [16] and ids[0, -1] == EOS
    assert "cut" in caplog.text


def test_bad_tokenizers(tokenizer):
    with pytest.raises(CheckpointError, match="JSON of a trained tokenizer"):
        TextTokenizer("{}")
    with pytest.raises(ConfigError, match="at least 260"):
        train_tokenizer(CORPUS, 100)


def test_encoder_ignores_padding(encoder, tokenizer):
    ids, lengths = TextTokenizer(tokenizer).encode(["two people shake hands", "wave"], 16)
    with torch.no_grad():
        both = encoder(ids, lengths)
        alone = encoder(ids[1:, : lengths[1]], lengths[1:])
    torch.testing.assert_close(both[1:], alone)
    assert not torch.allclose(both[0], both[1])


def test_encoder_learns_to_tell_prompts_apart(encoder, tokenizer):
    model = copy.deepcopy(encoder).train()
    ids, lengths = TextTokenizer(tokenizer).encode(CORPUS[:3], 16)
    head = torch.nn.Linear(32, 3)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=5e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(head(model(ids, lengths)), torch.arange(3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2


def test_prompt_encoder_caches_and_keeps_rows_apart(encoder, tokenizer):
    p = prompts(encoder, tokenizer, capacity=2)
    calls = []
    handle = encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        first = p.encode(["wave", "", "wave", "bow"])
        assert len(calls) == 2 and first.shape == (4, 32)
        assert torch.equal(first[0], first[2]) and not first[1].any() and first[3].any()
        assert torch.equal(p.encode([" wave "])[0], first[0]) and len(calls) == 2
        p.encode(["a", "b", "c"])
        assert len(p._cache) == 2, "bounded"
        assert torch.equal(p.encode(["wave"])[0], first[0]), "evicted, encoded again, the same to the bit"
    finally:
        handle.remove()
    assert p.encode([]).shape == (0, 32)


def test_prompt_encoder_does_not_train(encoder, tokenizer):
    encoder.train()
    try:
        p = prompts(encoder, tokenizer)
        a = p.encode(["wave"])
        assert not a.requires_grad and encoder.training
        p.clear()
        assert torch.equal(p.encode(["wave"]), a), "no dropout in a condition"
    finally:
        encoder.eval()


def test_long_text_is_cut_with_a_warning(encoder, tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        row = prompts(encoder, tokenizer).encode(["wave and bow " * 770])
    assert row.isfinite().all() and "10009 characters cut to 2000" in caplog.text


@pytest.mark.parametrize("texts", ["wave", [3], [None], None, [b"wave"]])
def test_not_text_is_an_error(encoder, tokenizer, texts):
    with pytest.raises(RtInteractError, match="expected a"):
        prompts(encoder, tokenizer).encode(texts)


def test_clip_needs_a_tower_or_a_given_condition():
    torch.manual_seed(0)
    config = TextConfig(kind="clip", width=32, layers=1, heads=4, ff=64)
    head = TextHead(config).eval()
    bare = PromptEncoder(config, head)
    assert not bare.encode([""]).any(), "no text, no tower needed"
    with pytest.raises(RtInteractError, match="clip=FOLDER.*bank=FILE.*put"):
        bare.encode(["wave"])
    bare.put("wave", torch.arange(32.0))
    assert torch.equal(bare.encode([" wave", ""])[0], torch.arange(32.0))
    with pytest.raises(RtInteractError, match="32 finite numbers"):
        bare.put("bow", torch.zeros(5))
    features = torch.randn(1, 77, 32)

    def tower(texts):
        return features.expand(len(texts), -1, -1), torch.tensor([5] * len(texts))

    towered = PromptEncoder(config, head, tower=tower)
    with torch.no_grad():
        torch.testing.assert_close(towered.encode(["wave", "bow"])[1:], head(features, torch.tensor([5])))


def test_model_without_text(encoder, tokenizer):
    p = PromptEncoder(TextConfig(kind="none", width=8, heads=2), None)
    assert p.encode([""]).shape == (1, 8)
    with pytest.raises(RtInteractError, match="takes no text"):
        p.encode(["wave"])
    with pytest.raises(ConfigError, match="tokenizer"):
        PromptEncoder(encoder.config, encoder)
    with pytest.raises(ConfigError, match="trained module"):
        PromptEncoder(encoder.config, None, tokenizer)
