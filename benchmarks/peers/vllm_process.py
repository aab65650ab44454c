"""vLLM behind a pipe: runs in vLLM's own environment, imports nothing of ours. One question, one
answer a line; the first question says what to load."""

import json
import sys
import time


def main() -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    setup = json.loads(sys.stdin.readline())
    adapters = [LoRARequest(str(i), i + 1, path) for i, path in enumerate(setup["adapters"])]
    llm = LLM(
        setup["model"],
        dtype=setup["dtype"],
        max_model_len=1024,
        max_num_seqs=32,
        enable_prefix_caching=False,
        **(
            {"enable_lora": True, "max_loras": len(adapters), "max_lora_rank": 16}
            if adapters
            else {}
        ),
    )
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        prompts = [{"prompt_token_ids": ids} for ids in ask["prompts"]]
        sampling = SamplingParams(max_tokens=ask["new"], ignore_eos=True, temperature=0)
        lora = adapters[: len(prompts)] if ask["lora"] else None
        started = time.perf_counter()
        done = llm.generate(prompts, sampling, use_tqdm=False, lora_request=lora)
        seconds = time.perf_counter() - started
        tokens = sum(len(output.outputs[0].token_ids) for output in done)
        print(json.dumps({"tokens_per_s": tokens / seconds}), flush=True)


if __name__ == "__main__":
    main()
