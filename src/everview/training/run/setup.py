"""From a recipe to a network that is ready to learn, and to its teacher."""

import dataclasses
from pathlib import Path

import torch

from everview.errors import ConfigError
from everview.model.config import Config
from everview.model.layers.block import Block
from everview.model.network import Network, build
from everview.model.presets import presets
from everview.training.adapt.activation_checkpoints import checkpoint_activations
from everview.training.adapt.freezing import check_trainable, freeze
from everview.training.adapt.lora import add_lora
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.settings import NetworkSettings, TeacherSettings
from everview.training.teacher import Teacher
from everview.training.teacher_cache import TeacherCache
from everview.weights.architecture import read_config
from everview.weights.load import load


def make_network(recipe: TrainingRecipe, device: torch.device) -> Network:
    """The network of a recipe in training mode: loaded or random, frozen as the recipe says.

    Raises:
        ConfigError: if the preset is unknown, or the count of trainable parameters is another.
        WeightsError: if the weights to start from do not fit.
    """
    settings = recipe.network
    network = _raw_network(settings, recipe.run.seed, device)
    if settings.frozen_precision == "bfloat16":
        if settings.lora is None:
            raise ConfigError(
                "network.frozen_precision=bfloat16 is for networks with network.lora; weights that "
                "learn are float32 (compute.precision=bfloat16 computes in bfloat16)"
            )
        network.set_precision(torch.bfloat16)
    if settings.lora is not None:
        add_lora(network, settings.lora, seed=recipe.run.seed)
    freeze(network, settings.frozen)
    check_trainable(network, settings.trainable_parameters)
    if recipe.compute.checkpoint_activations:
        checkpoint_activations(network)
    if recipe.compute.compile:
        compile_blocks(network)
    return network.train()


def compile_blocks(network: Network) -> None:
    """Fuse what surrounds attention in every block; attention has fast kernels of its own.

    Sizes are symbols, as clips of all lengths and heights come by: each kind of block is compiled
    once.
    """
    for module in network.modules():
        if isinstance(module, Block):
            module.ask = torch.compile(module.ask, dynamic=True)  # type: ignore[method-assign]
            module.answer = torch.compile(module.answer, dynamic=True)  # type: ignore[method-assign]


def make_teacher(settings: TeacherSettings, device: torch.device) -> Teacher:
    """The frozen teacher of a recipe.

    Raises:
        ConfigError: if none is named, or it is causal.
        WeightsError: if it cannot be loaded.
    """
    if settings.model is None:
        raise ConfigError(
            "this recipe needs a teacher: name a network with global attention (--teacher MODEL, "
            "or teacher.model in the recipe)"
        )
    cache = None
    if settings.cache is not None:
        cache = TeacherCache(
            folder=Path(settings.cache), half=settings.half, shrink=settings.shrink
        )
    return Teacher(load(settings.model, device=device, precision=settings.precision), cache)


def config_of(settings: NetworkSettings) -> Config:
    """The architecture.

    Raises:
        ConfigError: if it is neither a preset nor the path of a `config.json`.
    """
    path = Path(settings.preset)
    config = presets.get(settings.preset) or read_config(path)
    if config is None:
        raise ConfigError(
            f"network.preset {settings.preset!r} is unknown: use {', '.join(presets)}, or the path "
            "of a config.json"
        )
    if settings.attention is None:
        return config
    return dataclasses.replace(config, attention=settings.attention)


def _raw_network(settings: NetworkSettings, seed: int, device: torch.device) -> Network:
    config = config_of(settings)
    if settings.start is not None:
        return load(settings.start, device=device, precision="float32", config=config)
    network = build(config, seed=seed)
    if settings.layer_scale is not None:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("gamma"):
                    parameter.fill_(settings.layer_scale)
    return network.to(device)
