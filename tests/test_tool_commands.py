"""Command lines of vLLM, SGLang and LMDeploy: each setting under the tool's own name."""

import json
import shutil
from pathlib import Path

import pytest

from swiftcore.backends import (
    ServeOrder,
    get_backend,
    require_tool,
    serving_tool,
    start_tool_server,
)
from swiftcore.backends.serving import AdapterLimits, Command, Place
from swiftcore.errors import BackendMissing, UsageError
from swiftcore.recipe import Runtime
from swiftcore.recipe.sections import DeploySection, ToolSettings, check_backend_settings

GIB = 1 << 30
PLACE = Place(port=8100, threads=2, free_memory_bytes=16 * GIB)
CONFIG = {
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "hidden_size": 1024,
    "head_dim": 128,
    "max_position_embeddings": 40960,
}


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A folder with the configuration of a Qwen3 of 0.6 billion parameters."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swiftcore.backends.spec._GPU_FILES", ("/no/such/driver",))


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swiftcore.backends.spec._GPU_FILES", ("/dev/null",))


def adapter(folder: Path, **config) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def command(backend, model_dir: Path, *, device="auto", **fields) -> Command:
    order_fields = {name: fields.pop(name) for name in ("adapters", "dtype") if name in fields}
    length = fields.pop("max_model_len", None)
    order = ServeOrder(
        backend,
        model_dir,
        settings=ToolSettings(**fields),
        max_model_len=length,
        device=device,
        **order_fields,
    )
    return serving_tool(backend, device).command(order, PLACE)


def test_vllm_takes_the_build_for_this_machine(no_gpu: None):
    assert (serving_tool("vllm").backend.name, serving_tool("vllm").device) == ("vllm_cpu", "cpu")


def test_vllm_takes_a_gpu_unless_the_recipe_says_cpu(a_gpu: None):
    assert (serving_tool("vllm").backend.name, serving_tool("vllm").device) == ("vllm", "cuda")
    assert serving_tool("vllm", "cpu").backend.name == "vllm_cpu"
    with pytest.raises(UsageError, match="NVIDIA GPUs only"):
        serving_tool("sglang", "cpu")


def test_vllm_on_a_gpu(a_gpu: None, model_dir: Path):
    made = command("vllm", model_dir, max_model_len=4096, dtype="bfloat16")
    assert made.module == "vllm.entrypoints.cli.main"
    assert made.arguments == [
        *("serve", str(model_dir), "--served-model-name", "model"),
        *("--host", "127.0.0.1", "--port", "8100", "--generation-config", "vllm"),
        "--disable-uvicorn-access-log",
        *("--dtype", "bfloat16", "--max-model-len", "4096", "--gpu-memory-utilization", "0.9"),
        *("--tensor-parallel-size", "1", "--pipeline-parallel-size", "1"),
        *("--data-parallel-size", "1", "--max-num-seqs", "256", "--disable-custom-all-reduce"),
    ]
    assert made.key_variable == "VLLM_API_KEY"
    assert made.variables == {"VLLM_NO_USAGE_STATS": "1"}


def test_every_vllm_setting_is_passed_on(a_gpu: None, model_dir: Path, tmp_path: Path):
    made = command(
        "vllm",
        model_dir,
        adapters={"a": adapter(tmp_path / "a", r=8, rank_pattern={"q_proj": 20})},
        vllm_gpu_memory_utilization=0.5,
        vllm_tensor_parallel_size=2,
        vllm_pipeline_parallel_size=3,
        vllm_data_parallel_size=4,
        vllm_enable_expert_parallel=True,
        vllm_max_num_seqs=8,
        vllm_max_model_len=2048,
        vllm_disable_custom_all_reduce=False,
        vllm_enforce_eager=True,
        vllm_mm_processor_cache_gb=0,
        vllm_limit_mm_per_prompt={"image": 2},
        vllm_quantization="fp8",
        vllm_enable_prefix_caching=False,
        vllm_engine_kwargs={"seed": 3, "enable_chunked_prefill": False, "stop": ["a", "b"]},
    )
    assert made.arguments[made.arguments.index("--max-model-len") :] == [
        *("--max-model-len", "2048", "--gpu-memory-utilization", "0.5", "--enforce-eager"),
        *("--no-enable-prefix-caching", "--tensor-parallel-size", "2"),
        *("--pipeline-parallel-size", "3", "--data-parallel-size", "4"),
        *("--enable-expert-parallel", "--max-num-seqs", "8"),
        *("--mm-processor-cache-gb", "0.0", "--limit-mm-per-prompt", '{"image": 2}'),
        *("--quantization", "fp8"),
        *("--enable-lora", "--max-lora-rank", "32", "--max-loras", "1", "--max-cpu-loras", "32"),
        *("--api-server-count", "1"),
        *("--lora-modules", f"a={tmp_path / 'a'}"),
        *("--seed", "3", "--no-enable-chunked-prefill", "--stop", "a", "b"),
    ]
    assert made.variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"


def limits(backend, model_dir: Path, adapters=None, **settings) -> AdapterLimits:
    """Return what a server started like this says to further adapters."""
    fields = ToolSettings(**settings)
    order = ServeOrder(backend, model_dir, adapters=adapters or {}, settings=fields)
    routes = serving_tool(backend).adapter_routes
    assert routes is not None
    return routes.limits(order)


def test_vllm_takes_adapters_up_to_the_rank_and_the_number_it_was_started_for(
    a_gpu: None, model_dir: Path, tmp_path: Path
):
    first, small = adapter(tmp_path / "first", r=4), adapter(tmp_path / "small", r=16)
    large = adapter(tmp_path / "large", r=8, rank_pattern={"q_proj": 17})
    why_not = limits("vllm", model_dir, {"first": first})
    shutil.rmtree(first)  # nothing is read again
    assert why_not([small], 1) is None
    assert "up to 16, and large has rank 17" in (why_not([small, large], 1) or "")
    assert why_not([small], 31) is None
    assert "room for 32 adapters, and was given 32" in (why_not([small], 32) or "")
    assert limits("vllm", model_dir, vllm_max_lora_rank=20)([large], 0) is None
    assert limits("vllm", model_dir, vllm_enable_lora=True)([small], 0) is None
    assert "without adapters" in (limits("vllm", model_dir)([small], 0) or "")
    with pytest.raises(UsageError, match="no LoRA adapter"):
        why_not([tmp_path], 1)
    few = {"vllm_enable_lora": True, "vllm_engine_kwargs": {"max-cpu-loras": 2}}
    assert "room for 2" in (limits("vllm", model_dir, **few)([small], 2) or "")
    assert "--max-cpu-loras 2" in " ".join(command("vllm", model_dir, **few).arguments)
    many = {"vllm_enable_lora": True, "vllm_engine_kwargs": {"api_server_count": 2}}
    assert "several API servers" in (limits("vllm", model_dir, **many)([small], 0) or "")
    started = command("vllm", model_dir, **many)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in started.variables


def test_sglang_takes_adapters_of_the_modules_and_the_rank_it_was_started_for(
    a_gpu: None, model_dir: Path, tmp_path: Path
):
    first = adapter(tmp_path / "first", r=8, target_modules=["q_proj", "v_proj"])
    why_not = limits("sglang", model_dir, {"first": first})
    fits = adapter(tmp_path / "fits", r=8, target_modules=["q_proj"])
    assert why_not([fits], 1) is None
    larger = adapter(tmp_path / "larger", r=9, target_modules=["q_proj"])
    wider = adapter(tmp_path / "wider", r=8, target_modules=["q_proj", "up_proj"])
    for each in (larger, wider):
        assert f"of q_proj, v_proj, unlike {each.name}" in (why_not([fits, each], 1) or "")
    assert "without adapters" in (limits("sglang", model_dir)([fits], 0) or "")


def test_vllm_without_a_gpu_takes_no_more_memory_than_its_sequences_fill(model_dir: Path):
    def cache(**settings) -> str | None:
        made = command("vllm", model_dir, device="cpu", **settings)
        assert "--enforce-eager" in made.arguments
        return made.variables.get("VLLM_CPU_KVCACHE_SPACE")

    # A token takes 2 x 28 layers x 8 heads x 128 numbers of 4 bytes, 224 KiB.
    assert cache(max_model_len=4096, vllm_max_num_seqs=2) == str(-(-2 * 4096 * 224 // 2**20))
    assert cache() == "4"
    assert cache(vllm_gpu_memory_utilization=0.5) is None
    made = command("vllm", model_dir, device="cpu", vllm_gpu_memory_utilization=0.5)
    assert made.arguments[made.arguments.index("--gpu-memory-utilization") + 1] == "0.5"


def test_a_model_that_vllm_can_t_run_on_a_cpu_is_refused(model_dir: Path):
    (model_dir / "config.json").write_text(json.dumps({**CONFIG, "head_dim": 8}))
    with pytest.raises(UsageError, match="head size 8"):
        command("vllm", model_dir, device="cpu")


def test_adapters_of_a_rank_too_high_are_refused(model_dir: Path, tmp_path: Path):
    adapters = {"a": adapter(tmp_path / "a", r=64)}
    made = command("vllm", model_dir, device="cpu", adapters=adapters)
    assert made.arguments[made.arguments.index("--max-lora-rank") + 1] == "64"
    with pytest.raises(UsageError, match="vllm_max_lora_rank: 64"):
        command("vllm", model_dir, device="cpu", adapters=adapters, vllm_max_lora_rank=16)
    huge = {"a": adapter(tmp_path / "b", r=1024)}
    with pytest.raises(UsageError, match="merge the adapter"):
        command("vllm", model_dir, device="cpu", adapters=huge)
    with pytest.raises(UsageError, match="no LoRA adapter"):
        command("vllm", model_dir, device="cpu", adapters={"a": tmp_path})
    allowed = command("vllm", model_dir, device="cpu", vllm_enable_lora=True).arguments
    assert allowed[-5:] == ["--enable-lora", "--max-lora-rank", "16", "--max-cpu-loras", "32"]


def test_sglang(model_dir: Path, tmp_path: Path):
    made = command(
        "sglang",
        model_dir,
        adapters={"a": tmp_path},
        dtype="float16",
        sglang_tp_size=4,
        sglang_pp_size=2,
        sglang_dp_size=2,
        sglang_ep_size=4,
        sglang_mem_fraction_static=0.8,
        sglang_context_length=2048,
        sglang_disable_cuda_graph=True,
        sglang_quantization="fp8",
        sglang_kv_cache_dtype="fp8_e5m2",
        sglang_enable_dp_attention=True,
    )
    assert (made.module, made.key_flag) == ("sglang.launch_server", "--api-key")
    assert made.arguments == [
        *("--model-path", str(model_dir), "--served-model-name", "model"),
        *("--host", "127.0.0.1", "--port", "8100", "--sampling-defaults", "openai"),
        *("--log-level-http", "warning"),
        *("--dtype", "float16", "--context-length", "2048", "--attn-dp-size", "2"),
        *("--cuda-graph-backend-decode", "disabled", "--cuda-graph-backend-prefill", "disabled"),
        *("--tp-size", "4", "--pp-size", "2", "--ep-size", "4", "--mem-fraction-static", "0.8"),
        *("--quantization", "fp8", "--kv-cache-dtype", "fp8_e5m2", "--disable-custom-all-reduce"),
        *("--enable-lora", "--lora-paths", f"a={tmp_path}"),
    ]
    plain = command("sglang", model_dir, sglang_dp_size=2, sglang_disable_custom_all_reduce=False)
    assert plain.arguments[plain.arguments.index("--dp-size") :] == [
        *("--dp-size", "2", "--tp-size", "1", "--pp-size", "1", "--ep-size", "1"),
        *("--kv-cache-dtype", "auto"),
    ]


def test_lmdeploy(model_dir: Path, tmp_path: Path):
    made = command(
        "lmdeploy",
        model_dir,
        adapters={"a": tmp_path},
        dtype="bfloat16",
        lmdeploy_tp=2,
        lmdeploy_session_len=2048,
        lmdeploy_cache_max_entry_count=0.5,
        lmdeploy_quant_policy=8,
        lmdeploy_vision_batch_size=3,
    )
    assert (made.module, made.key_flag) == ("lmdeploy", "--api-keys")
    assert made.arguments == [
        *("serve", "api_server", str(model_dir), "--model-name", "model"),
        *("--server-name", "127.0.0.1", "--server-port", "8100"),
        *("--generation-config", "lmdeploy", "--dtype", "bfloat16", "--session-len", "2048"),
        *("--vision-max-batch-size", "3", "--tp", "2", "--cache-max-entry-count", "0.5"),
        *("--quant-policy", "8", "--backend", "pytorch", "--adapters", f"a={tmp_path}"),
    ]
    assert "--backend" not in command("lmdeploy", model_dir).arguments
    with pytest.raises(UsageError, match="float32"):
        command("lmdeploy", model_dir, dtype="float32")


@pytest.mark.parametrize("backend", ["vllm", "sglang", "lmdeploy"])
def test_a_length_is_said_once(a_gpu: None, model_dir: Path, backend: str):
    name = {"sglang": "sglang_context_length", "lmdeploy": "lmdeploy_session_len"}.get(
        backend, "vllm_max_model_len"
    )
    assert "100" in command(backend, model_dir, max_model_len=100, **{name: 100}).arguments
    with pytest.raises(UsageError, match=name):
        command(backend, model_dir, max_model_len=100, **{name: 200})


@pytest.mark.parametrize("backend", ["sglang", "lmdeploy"])
def test_a_tool_that_needs_a_gpu_says_so_before_anything_starts(
    no_gpu: None, model_dir: Path, tmp_path: Path, backend
):
    order = ServeOrder(backend, model_dir)
    with pytest.raises(BackendMissing, match="needs an NVIDIA GPU"):
        start_tool_server(order, log=tmp_path / "log", runtime=Runtime(), timeout_seconds=1)
    with pytest.raises(BackendMissing, match="needs an NVIDIA GPU"):
        require_tool(backend, Runtime(install_backends=True))


def test_vllm_that_is_not_installed_names_the_command(
    no_gpu: None, model_dir: Path, tmp_path: Path
):
    runtime = Runtime(backends_dir=tmp_path / "none")
    order = ServeOrder("vllm", model_dir)
    with pytest.raises(BackendMissing, match="swift env install vllm_cpu"):
        start_tool_server(order, log=tmp_path / "log", runtime=runtime, timeout_seconds=1)
    with pytest.raises(BackendMissing, match="swift env install vllm_cpu"):
        require_tool("vllm", runtime)
    require_tool("vllm", Runtime(backends_dir=tmp_path / "none", install_backends=True))


def test_settings_of_a_tool_that_does_not_serve_are_refused():
    check_backend_settings("pt", ToolSettings())
    check_backend_settings("vllm", ToolSettings(vllm_max_num_seqs=4))
    with pytest.raises(ValueError, match="sglang_tp_size, vllm_max_num_seqs do nothing"):
        check_backend_settings("pt", ToolSettings(vllm_max_num_seqs=4, sglang_tp_size=2))
    with pytest.raises(ValueError, match="sglang_dp_size 1"):
        check_backend_settings("sglang", ToolSettings(sglang_enable_dp_attention=True))
    with pytest.raises(ValueError, match="vllm_max_num_seqs do nothing with infer_backend pt"):
        DeploySection(vllm_max_num_seqs=4)


@pytest.mark.parametrize("written", ["port", "api-key", "ssl_keyfile", "max-num-seqs"])
def test_further_options_don_t_repeat_what_has_a_place(written: str):
    with pytest.raises(ValueError, match="vllm_engine_kwargs"):
        ToolSettings(vllm_engine_kwargs={written: 1})


@pytest.mark.parametrize("name", ["vllm", "sglang", "lmdeploy"])
def test_tools_for_gpus_are_locked_with_a_hash_for_every_package(name: str):
    lock = get_backend(name).lock.read_text()
    assert "\ntorch==" in lock
    assert all(line.endswith("\\") for line in lock.splitlines() if "==" in line and line[0] != " ")
