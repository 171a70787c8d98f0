"""The registered families, each as data, by maker.

Sources: the models' published chat templates, checked against recorded ms-swift encodings
(`tests/test_template_golden.py`). What ms-swift does in code for some of them, beyond these texts,
is modelled by fields of `ChatTemplate` where it could be established; `docs/templates.md` names
the others.
"""

from swiftcore.template.definition import ChatTemplate
from swiftcore.template.families import (
    baidu,
    bytedance,
    deepseek,
    gemma,
    glm,
    inclusion,
    internlm,
    llama,
    llava,
    makers,
    media,
    microsoft,
    minimax,
    mistral,
    moonshot,
    openai,
    openbmb,
    plain,
    qwen,
    tencent,
)

FAMILIES: tuple[ChatTemplate, ...] = tuple(
    family
    for maker in (
        plain,
        qwen,
        llama,
        mistral,
        deepseek,
        gemma,
        glm,
        internlm,
        microsoft,
        openai,
        baidu,
        openbmb,
        minimax,
        moonshot,
        tencent,
        inclusion,
        bytedance,
        llava,
        makers,
        media,
    )
    for family in maker.FAMILIES
)
