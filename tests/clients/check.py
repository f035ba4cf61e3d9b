"""The clients that people have, unchanged, against a running server: every check that fails is named, none stops the rest.

    check.py BASE_URL MODEL TOOL_MODEL

TOOL_MODEL is a model whose template takes tools. Exits with 1 where anything failed.
"""
import json, subprocess, sys, traceback, urllib.error, urllib.request

import ollama, openai
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

BASE, MODEL, TOOLS = sys.argv[1:4]
ask = "Name a colour."
few = {"num_predict": 8, "temperature": 0}
tool = {"type": "function", "function": {"name": "weather", "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"], "additionalProperties": False}}}
person = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"], "additionalProperties": False}
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


native = ollama.Client(host=BASE)
compatible = openai.OpenAI(base_url=BASE + "/v1", api_key="ollama", max_retries=0)


@check
def ollama_generate():
    r = native.generate(MODEL, ask, options=few)
    assert r.done and r.response and r.eval_count <= 8 and r.prompt_eval_count > 0 and r.total_duration > 0, r
    again = native.generate(MODEL, ask, options=few | {"num_predict": 4}, context=r.context)
    assert again.prompt_eval_count > r.prompt_eval_count


@check
def ollama_stream():
    parts = list(native.generate(MODEL, ask, options=few, stream=True))
    whole = native.generate(MODEL, ask, options=few).response
    assert "".join(p.response for p in parts) == whole and parts[-1].done and not parts[0].done


@check
def ollama_chat():
    messages = [{"role": "user", "content": ask}]
    r = native.chat(MODEL, messages, options=few)
    assert r.message.role == "assistant" and r.message.content
    parts = list(native.chat(MODEL, messages, options=few, stream=True))
    assert "".join(p.message.content for p in parts) == r.message.content
    assert parts[-1].done_reason in ("stop", "length")


@check
def ollama_schema():
    r = native.generate(MODEL, "A person as JSON:", format=person, options={"temperature": 0, "num_predict": 80})
    found = json.loads(r.response)
    assert set(found) == {"name", "age"} and isinstance(found["age"], int), found
    json.loads(native.generate(MODEL, "Three colours as JSON:", format="json", options={"temperature": 0, "num_predict": 200}).response or "{}")


@check
def ollama_tools():
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    r = native.chat(TOOLS, messages, tools=[tool], options=few)
    assert r.message.role == "assistant"
    past = messages + [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}]},
        {"role": "tool", "content": "sunny", "tool_name": "weather"}]
    assert native.chat(TOOLS, past, tools=[tool], options=few).done
    error = raises(ollama.ResponseError, lambda: native.chat(MODEL, messages, tools=[tool]))
    assert error.status_code == 400 and "does not support tools" in str(error)


@check
def ollama_embed():
    r = native.embed(MODEL, ["one", "two words"])
    assert len(r.embeddings) == 2 and abs(sum(x * x for x in r.embeddings[0]) - 1) < 1e-3
    assert len(native.embed(MODEL, "one", dimensions=16).embeddings[0]) == 16
    assert len(native.embeddings(MODEL, "one").embedding) == len(r.embeddings[0])


@check
def ollama_models():
    assert MODEL in [m.model for m in native.list().models]
    shown = native.show(MODEL)
    assert shown.modelinfo and "completion" in shown.capabilities
    assert any(m.name == MODEL for m in native.ps().models)
    native.copy(MODEL, "checks-copy")
    assert "checks-copy:latest" in [m.model for m in native.list().models]
    native.delete("checks-copy")
    assert raises(ollama.ResponseError, lambda: native.delete("checks-copy")).status_code == 404


@check
def ollama_create():
    progress = list(native.create("checks-made", from_=MODEL, system="Answer with one word.", parameters={"temperature": 0.5}, stream=True))
    assert progress[-1].status == "success", progress
    shown = native.show("checks-made")
    assert "temperature" in shown.parameters and shown.modelfile
    assert native.generate("checks-made", ask, options={"num_predict": 2}).done
    native.delete("checks-made")


@check
def ollama_errors():
    assert raises(ollama.ResponseError, lambda: native.generate("no-such-model", "x")).status_code == 404
    error = raises(ollama.ResponseError, lambda: native.generate(MODEL, "x", options={"temperature": 1e9}))
    assert error.status_code == 400 and "temperature" in str(error)


@check
def ollama_unload():
    assert native.generate(MODEL, "", keep_alive=0).done_reason == "unload"
    assert native.generate(MODEL, "", keep_alive="5m").done_reason == "load"


@check
def openai_chat():
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": ask}]}]
    r = compatible.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=6, temperature=0, seed=1)
    assert r.choices[0].message.content and r.usage.completion_tokens <= 6 and r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens
    stream = compatible.chat.completions.create(model=MODEL, messages=messages, max_tokens=6, temperature=0, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].usage.completion_tokens == r.usage.completion_tokens
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == r.choices[0].message.content
    assert len({c.created for c in chunks}) == 1


@check
def openai_n_seed_logprobs():
    messages = [{"role": "user", "content": ask}]
    r = compatible.chat.completions.create(model=MODEL, messages=messages, n=2, max_tokens=5, seed=7, logprobs=True, top_logprobs=2)
    assert [c.index for c in r.choices] == [0, 1]
    first = r.choices[0].logprobs.content
    assert first and len(first[0].top_logprobs) == 2 and first[0].logprob <= 0
    again = compatible.chat.completions.create(model=MODEL, messages=messages, max_tokens=5, seed=7)
    assert again.choices[0].message.content == r.choices[0].message.content, "the same seed gives the same answer"


@check
def openai_bias_and_stop():
    messages = [{"role": "user", "content": ask}]
    r = compatible.chat.completions.create(model=MODEL, messages=messages, max_tokens=4, temperature=0, logprobs=True, logit_bias={"28": 100})
    assert all(t.token == "," for t in r.choices[0].logprobs.content), r.choices[0].logprobs
    r = compatible.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Count: 1 2 3"}], max_tokens=40, temperature=0, stop=["e"])
    assert "e" not in r.choices[0].message.content and r.choices[0].finish_reason == "stop"


@check
def openai_tools():
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    r = compatible.chat.completions.create(model=MODEL, messages=messages, tools=[tool], tool_choice="required", temperature=0, max_tokens=80)
    call = r.choices[0].message.tool_calls[0]
    assert call.function.name == "weather" and "city" in json.loads(call.function.arguments) and r.choices[0].finish_reason == "tool_calls"
    named = {"type": "function", "function": {"name": "weather"}}
    chunks = list(compatible.chat.completions.create(model=TOOLS, messages=messages, tools=[tool], tool_choice=named, temperature=0, max_tokens=80, stream=True))
    calls = [c.choices[0].delta.tool_calls for c in chunks if c.choices and c.choices[0].delta.tool_calls]
    assert calls[0][0].index == 0 and calls[0][0].function.name == "weather"
    past = messages + [{"role": "assistant", "content": None, "tool_calls": [call.model_dump()]}, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    assert compatible.chat.completions.create(model=TOOLS, messages=past, tools=[tool], max_tokens=4).choices


@check
def openai_schema():
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": person, "strict": True}}
    r = compatible.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "A person"}], response_format=form, temperature=0, max_tokens=80)
    assert set(json.loads(r.choices[0].message.content)) == {"name", "age"}
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "frobnicate": 1, "contains": {}}}}
    raises(openai.BadRequestError, lambda: compatible.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], response_format=bad))


@check
def openai_completions():
    r = compatible.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=5, temperature=0, logprobs=2, echo=False)
    assert r.choices[0].text and len(r.choices[0].logprobs.tokens) == 5
    r = compatible.completions.create(model=MODEL, prompt=[[1, 2, 3], [4, 5]], max_tokens=2)
    assert len(r.choices) == 2 and r.usage.prompt_tokens == 5
    chunks = list(compatible.completions.create(model=MODEL, prompt="A", max_tokens=3, stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"


@check
def openai_embeddings():
    r = compatible.embeddings.create(model=MODEL, input=["one", "two"])
    plain = compatible.embeddings.create(model=MODEL, input="one", encoding_format="float")
    assert max(abs(a - b) for a, b in zip(r.data[0].embedding, plain.data[0].embedding)) < 1e-6
    assert len(compatible.embeddings.create(model=MODEL, input=[[1, 2], [3]]).data) == 2


@check
def openai_models_and_errors():
    ids = [m.id for m in compatible.models.list()]
    assert MODEL in ids and compatible.models.retrieve(MODEL).id == MODEL
    raises(openai.NotFoundError, lambda: compatible.chat.completions.create(model="no-such", messages=[{"role": "user", "content": "x"}]))
    error = raises(openai.BadRequestError, lambda: compatible.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], temperature=9))
    assert "temperature" in str(error)
    raises(openai.BadRequestError, lambda: compatible.completions.create(model=MODEL, prompt="word " * 20000, max_tokens=1))


@check
def langchain_ollama():
    chat = ChatOllama(model=MODEL, base_url=BASE, num_predict=8, temperature=0, validate_model_on_init=True)
    r = chat.invoke(ask)
    assert r.content and r.usage_metadata["output_tokens"] <= 8
    assert "".join(c.content for c in chat.stream(ask)) == r.content
    assert ChatOllama(model=TOOLS, base_url=BASE, num_predict=8).bind_tools([tool]).invoke(ask) is not None
    shaped = ChatOllama(model=MODEL, base_url=BASE, num_predict=80, temperature=0, format=person).invoke("A person")
    assert "age" in json.loads(shaped.content)
    assert len(OllamaEmbeddings(model=MODEL, base_url=BASE).embed_documents(["a", "b"])) == 2


@check
def langchain_openai():
    chat = ChatOpenAI(model=MODEL, base_url=BASE + "/v1", api_key="x", max_completion_tokens=8, temperature=0)
    r = chat.invoke(ask)
    assert r.content and r.usage_metadata["output_tokens"] <= 8
    assert "".join(c.content for c in chat.stream(ask)) == r.content
    called = chat.model_copy(update={"max_tokens": 80}).bind_tools([tool], tool_choice="weather").invoke("The weather in Rome?")
    assert called.tool_calls[0]["name"] == "weather"
    vectors = OpenAIEmbeddings(model=MODEL, base_url=BASE + "/v1", api_key="x", check_embedding_ctx_length=False)
    assert len(vectors.embed_documents(["a", "b"])) == 2


def curl(*arguments):
    return subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], check=True, capture_output=True, text=True).stdout


@check
def curl_as_documented():
    body = json.dumps({"model": MODEL, "prompt": ask, "stream": False, "options": few})
    assert json.loads(curl(BASE + "/api/generate", "-d", body))["response"]
    assert json.loads(curl("-X", "POST", BASE + "/api/embeddings", "-d", json.dumps({"model": MODEL, "prompt": "x"})))["embedding"]
    assert json.loads(curl(BASE + "/api/health")) == {"status": "ok"} and json.loads(curl(BASE + "/health")) == {"status": "ok"}
    assert curl(BASE) == "Ollama is running"
    version = json.loads(curl(BASE + "/api/version"))["version"]
    assert all(part.isdigit() for part in version.split("."))
    page = curl(BASE + "/metrics")
    assert page == page and "handmill_generated_tokens_total" in page and "vllm:num_requests_waiting" in curl(BASE + "/api/metrics")
    lines = curl(BASE + "/api/chat", "-d", json.dumps({"model": MODEL, "messages": [{"role": "user", "content": ask}], "options": few})).splitlines()
    assert json.loads(lines[-1])["done"] is True
    tokens = json.loads(curl(BASE + "/tokenize", "-H", "Content-Type: application/json", "-d", json.dumps({"content": "Hi there", "model": MODEL})))["tokens"]
    text = json.loads(curl(BASE + "/detokenize", "-H", "Content-Type: application/json", "-d", json.dumps({"tokens": tokens, "model": MODEL})))["content"]
    assert text == "Hi there"
    assert json.loads(curl(BASE + "/props"))["total_slots"] > 0 and json.loads(curl(BASE + "/slots"))
    assert "<title>" in curl(BASE + "/ui")


def main():
    failed = 0
    for function in CHECKS:
        try:
            function()
            print(f"ok   {function.__name__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL {function.__name__}\n{traceback.format_exc(limit=-3)}", flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    sys.exit(1 if failed else 0)


main()
