//! Low-rank adapters beside the model that they would be merged into: the same logits, and the same bits in any company.

use engine::{Adapter, Device, Engine, KvType, Options, Precision};
use gguf::{Builder, Endian, Format, Gguf, ValueBuf};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tests::golden::distance;
use tests::http::Server;
use tests::observe::{Observed, as_f64, digest, observe, submit, submit_adapted};
use tests::process::handmill;
use tests::random::Random;
use tests::tiny::Model;

const RANK: usize = 3;
const ALPHA: f32 = 6.0;
/// Matrices that get an adapter: one of each place where an architecture has products.
const ADAPTED: [&str; 4] =
    ["blk.0.attn_q.weight", "blk.1.attn_output.weight", "blk.1.ffn_down.weight", "output.weight"];
const PROMPT: [u32; 9] = [5, 77, 3, 120, 44, 9, 250, 11, 12];

type Floats = BTreeMap<String, (Vec<u64>, Vec<f32>)>;

fn floats(gguf: &Gguf) -> Floats {
    let read = |t: &gguf::TensorInfo| {
        let mut values = vec![0.0; t.shape.elements() as usize];
        t.format.decoder().expect("floats")(&gguf.little_endian(t), &mut values);
        (t.name.clone(), (t.shape.dims().to_vec(), values))
    };
    gguf.tensors().iter().map(read).collect()
}

fn file(keys: impl FnOnce(&mut Builder), tensors: &Floats) -> Vec<u8> {
    let mut head = Builder::new(Endian::Little);
    keys(&mut head);
    for (name, (dims, _)) in tensors {
        head.tensor(name, dims, Format::F32).expect("a sound tensor");
    }
    let mut out = head.start(Vec::new()).expect("a file in memory");
    for (_, values) in tensors.values() {
        out.data(bytemuck::cast_slice(values)).expect("a file in memory");
    }
    out.finish().expect("all data")
}

/// Random factors for the matrices of a model.
fn factors(model: &Floats, seed: u64) -> Floats {
    let mut random = Random::new(seed);
    let mut all = Floats::new();
    for name in ADAPTED {
        let dims = &model[name].0;
        for (end, dims) in [("lora_a", [dims[0], RANK as u64]), ("lora_b", [RANK as u64, dims[1]])] {
            let values = (0..dims[0] * dims[1]).map(|_| 0.3 * random.signed()).collect();
            all.insert(format!("{name}.{end}"), (dims.to_vec(), values));
        }
    }
    all
}

fn adapter(arch: &str, factors: &Floats) -> Vec<u8> {
    let keys = |head: &mut Builder| {
        for (key, value) in [("general.type", "adapter"), ("general.architecture", arch), ("adapter.type", "lora")] {
            head.key(key, value).expect("a new key");
        }
        head.key("adapter.lora.alpha", ALPHA).expect("a new key");
    };
    file(keys, factors)
}

/// The model with adapters added to its weights, in f64.
fn merged(bytes: &[u8], adapters: &[(&Floats, f32)]) -> Vec<u8> {
    let gguf = Gguf::parse(bytes).expect("a sound model");
    let mut all = floats(&gguf);
    for (factors, strength) in adapters {
        for name in ADAPTED {
            let (a, b) = (&factors[&format!("{name}.lora_a")].1, &factors[&format!("{name}.lora_b")].1);
            let (dims, w) = all.get_mut(name).expect("a matrix of the model");
            let k = dims[0] as usize;
            let factor = f64::from(*strength) * f64::from(ALPHA) / RANK as f64;
            for (i, w) in w.iter_mut().enumerate() {
                let (row, column) = (i / k, i % k);
                let dot: f64 = (0..RANK).map(|r| f64::from(b[row * RANK + r]) * f64::from(a[r * k + column])).sum();
                *w = (f64::from(*w) + factor * dot) as f32;
            }
        }
    }
    let keys = |head: &mut Builder| {
        for (key, value) in gguf.meta().iter() {
            head.key(key, ValueBuf::from(value)).expect("a key of the model");
        }
    };
    file(keys, &all)
}

fn options(adapters: Vec<Adapter>) -> Options {
    let (precision, kv) = (Precision::F32, KvType::F32);
    Options {
        adapters,
        precision,
        kv,
        threads: Some(2),
        ctx: Some(96),
        sequences: 4,
        check_workers: true,
        ..Options::default()
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a folder that can be written");
    path
}

fn model() -> Vec<u8> {
    Model { tied: false, ..Model::llama(41) }.bytes()
}

fn logits(engine: &Engine) -> Observed<Vec<f64>> {
    observe(engine, &PROMPT, 0, 4, as_f64).expect("logits")
}

#[test]
fn two_adapters_compute_what_merging_them_would() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = model();
    let own = floats(&Gguf::parse(&bytes).expect("a sound model"));
    let (first, second) = (factors(&own, 1), factors(&own, 2));
    let paths = [&first, &second].map(|f| adapter("llama", f));
    let load = |i: usize, scale| Adapter { path: write(folder.path(), &format!("{i}.gguf"), &paths[i]), scale };
    let adapted = Engine::from_bytes(&bytes, &options(vec![load(0, 1.0), load(1, -0.5)])).expect("an engine");
    let expected = Engine::from_bytes(&merged(&bytes, &[(&first, 1.0), (&second, -0.5)]), &options(vec![]));
    let (found, expected) = (logits(&adapted), logits(&expected.expect("an engine")));
    let plain = logits(&Engine::from_bytes(&bytes, &options(vec![])).expect("an engine"));
    for ((found, expected), plain) in found.rows.iter().zip(&expected.rows).zip(&plain.rows) {
        let off = distance(&found.1, &expected.1);
        assert!(off < 1e-3, "position {}: off by {off:.1e} from the merged model", found.0);
        assert!(distance(&plain.1, &expected.1) > 0.1, "the adapters change nothing");
    }
    assert_eq!(found.generated, expected.generated);
}

/// Strengths are a request's own: the same bits alone and beside requests with others, and those of the bare model where
/// all are 0.
fn strengths_are_of_requests(device: &Device) {
    let options = |adapters| Options { device: device.clone(), ..options(adapters) };
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = model();
    let own = floats(&Gguf::parse(&bytes).expect("a sound model"));
    let path = write(folder.path(), "a.gguf", &adapter("llama", &factors(&own, 3)));
    let engine = Engine::from_bytes(&bytes, &options(vec![Adapter { path, scale: 1.0 }])).expect("an engine");
    let plain = Engine::from_bytes(&bytes, &options(vec![])).expect("an engine");
    let strengths = [Some(vec![0.0]), Some(vec![0.7]), None, Some(vec![0.0])];
    let alone: Vec<_> = strengths
        .iter()
        .map(|s| submit_adapted(&engine, &PROMPT, s.clone(), digest).wait().expect("logits").rows)
        .collect();
    let together: Vec<_> = strengths.iter().map(|s| submit_adapted(&engine, &PROMPT, s.clone(), digest)).collect();
    for (i, (pending, alone)) in together.into_iter().zip(&alone).enumerate() {
        assert!(pending.wait().expect("logits").rows == *alone, "request {i} has other bits in company");
    }
    assert!(alone[1] != alone[2] && alone[0] == alone[3]);
    let bare = submit(&plain, &PROMPT, 0, 6, digest).wait().expect("logits").rows;
    assert!(bare == alone[0], "an adapter of strength 0 changes bits");
    let wrong = submit_adapted(&engine, &PROMPT, Some(vec![1.0, 1.0]), digest).wait().expect_err("two strengths");
    assert!(wrong.to_string().contains("2 strengths"), "{wrong}");
}

#[test]
fn each_request_has_its_own_strengths() {
    strengths_are_of_requests(&Device::Cpu);
}

#[test]
fn adapters_are_put_on_on_every_gpu() {
    let (gpus, _busy) = tests::gpu::obtain();
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = model();
    let own = floats(&Gguf::parse(&bytes).expect("a sound model"));
    let path = write(folder.path(), "a.gguf", &adapter("llama", &factors(&own, 3)));
    let run = |device| {
        let adapters = vec![Adapter { path: path.clone(), scale: 0.8 }];
        let found = logits(&Engine::from_bytes(&bytes, &Options { device, ..options(adapters) }).expect("an engine"));
        found.rows.into_iter().flat_map(|row| row.1).collect::<Vec<f64>>()
    };
    let expected = run(Device::Cpu);
    for gpu in gpus {
        let off = tests::gpu::nmse(&run(Device::Index(gpu.index)), &expected);
        assert!(off < 1e-6, "{} ({}): NMSE {off:.1e}", gpu.name, gpu.api);
        strengths_are_of_requests(&Device::Index(gpu.index));
    }
}

/// A prefix that was computed at one strength is not taken for another.
#[test]
fn cached_prefixes_are_of_one_strength() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = model();
    let own = floats(&Gguf::parse(&bytes).expect("a sound model"));
    let path = write(folder.path(), "a.gguf", &adapter("llama", &factors(&own, 3)));
    let wide = Options { ctx: Some(256), ..options(vec![Adapter { path, scale: 1.0 }]) };
    let engine = Engine::from_bytes(&bytes, &wide).expect("an engine");
    let prompt: Vec<u32> = (0..150).map(|i| (i * 7 + 3) % 250).collect();
    let last = |strength: f32| {
        let pending = tests::observe::submit_from(&engine, &prompt, 149, Some(vec![strength]), digest);
        pending.wait().expect("logits")
    };
    let (first, other, again, back) = (last(0.5), last(0.25), last(0.5), last(0.25));
    assert_eq!((first.cached, other.cached), (0, 0));
    assert!(again.cached > 0 && back.cached > 0, "a prefix of the same strength is shared");
    assert!(first.rows == again.rows && other.rows == back.rows && first.rows != other.rows);
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = model();
    let own = floats(&Gguf::parse(&bytes).expect("a sound model"));
    let good = factors(&own, 1);
    let renamed = |from: &str, to: &str| {
        let rename = |(name, v): (&String, &(Vec<u64>, Vec<f32>))| (name.replace(from, to), v.clone());
        adapter("llama", &good.iter().map(rename).collect())
    };
    let mut half = good.clone();
    half.remove("output.weight.lora_b");
    let mut wide = good.clone();
    wide.insert("output.weight.lora_b".into(), (vec![RANK as u64, 7], vec![0.0; 7 * RANK]));
    let rows: [(&str, Vec<u8>, &str); 7] = [
        ("a model", bytes.clone(), "general.type"),
        ("another architecture", adapter("qwen2", &good), "general.architecture"),
        ("a matrix that is not there", renamed("blk.1", "blk.9"), "does not have"),
        ("an embedding", renamed("blk.0.attn_q", "token_embd"), "an embedding"),
        ("half", adapter("llama", &half), "half of an adapter"),
        ("another shape", adapter("llama", &wide), "shapes"),
        ("no part", renamed("lora_", "lorax_"), "no part"),
    ];
    for (name, bytes_of, words) in rows {
        let path = write(folder.path(), "bad.gguf", &bytes_of);
        let error = Engine::from_bytes(&bytes, &options(vec![Adapter { path, scale: 1.0 }])).map(|_| ());
        let error = error.expect_err(name).to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
}

/// The server puts on what a Modelfile names, and what is made of such a model keeps it; commands that would leave it out
/// refuse.
#[test]
fn a_modelfile_names_an_adapter() {
    let server = tests::http::Server::start(&[]);
    let folder = server.folder();
    let bytes = std::fs::read(folder.join("tiny.gguf")).expect("the server's model");
    let own = floats(&Gguf::parse(&bytes).expect("a sound model"));
    write(&folder, "a.gguf", &adapter("llama", &factors(&own, 5)));
    for (name, text) in
        [("plain", "FROM ./tiny.gguf"), ("adapted", "FROM ./tiny.gguf\nADAPTER ./a.gguf"), ("child", "FROM adapted")]
    {
        let file = write(&folder, "Modelfile", text.as_bytes());
        let create = handmill(&["create", name, "-f", file.to_str().expect("UTF-8")]);
        create.environment("HANDMILL_HOME", &folder.join("store")).run().success();
    }
    let answer = |model: &str| {
        let options = serde_json::json!({ "num_predict": 12, "temperature": 0, "ignore_eos": true });
        let body = serde_json::json!({ "model": model, "prompt": "the rain", "raw": true, "stream": false, "options": options });
        let answer = server.post("/api/generate", &body.to_string());
        assert_eq!(answer.status, 200, "{model}: {}", answer.body);
        answer.json()["response"].to_string()
    };
    let [plain, adapted, child] = ["plain", "adapted", "child"].map(answer);
    assert!(plain != adapted && adapted == child, "{plain} {adapted} {child}");
    let run = handmill(&["run", "adapted", "x", "-n", "1"]).environment("HANDMILL_HOME", &folder.join("store")).run();
    assert!(run.code == Some(1) && run.stderr.contains("--lora"), "{run:?}");
}

#[test]
fn requests_say_how_strong_adapters_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("style.gguf");
    let model = floats(&Gguf::parse(&Model::llama(7).bytes()).expect("a sound model"));
    std::fs::write(&path, adapter("llama", &factors(&model, 5))).expect("a writable folder");
    let server = Server::start(&["--lora", path.to_str().expect("a path of letters")]);
    let options = json!({"num_predict": 24, "temperature": 0, "ignore_eos": true});
    let body = |lora: Value| json!({"model": "tiny", "prompt": "the rain", "raw": true, "stream": false, "options": options, "lora": lora});
    let ask = |lora: Value| {
        let answer = server.post("/api/generate", &body(lora).to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["response"].as_str().expect("a text").to_string()
    };
    let (usual, none, half) = (ask(Value::Null), ask(json!([])), ask(json!([{"id": 0, "scale": 0.5}])));
    assert_ne!(usual, none);
    assert_eq!(ask(json!([{"id": 0, "scale": 1}])), usual);
    let listed = json!([{"id": 0, "path": "style.gguf", "scale": 1.0}]);
    assert_eq!(server.get("/lora-adapters").json(), listed);
    assert_eq!(server.post("/lora-adapters", "[{\"id\": 0, \"scale\": 0.5}]").json(), json!({"success": true}));
    assert_eq!((ask(Value::Null), ask(json!([]))), (half.clone(), none));
    assert_eq!(server.get("/lora-adapters").json()[0]["scale"], 0.5);
    let completion = json!({"model": "tiny", "prompt": "the rain", "max_tokens": 24, "temperature": 0, "ignore_eos": true, "lora": [{"id": 0, "scale": 1.0}]});
    assert_eq!(server.post("/v1/completions", &completion.to_string()).json()["choices"][0]["text"], usual);
    for (lora, word) in [
        (json!([{"id": 1, "scale": 1}]), "adapter 1"),
        (json!([{"id": 0}]), "scale"),
        (json!([{"id": 0, "scale": "much"}]), "scale"),
        (json!([{"id": 0, "scale": 1, "frob": 1}]), "frob"),
        (json!({"id": 0}), "lora"),
        (json!([7]), "lora[0]"),
    ] {
        let answer = server.post("/api/generate", &body(lora.clone()).to_string());
        assert!(answer.status == 400 && answer.body.contains(word), "{lora}: {} {}", answer.status, answer.body);
        let answer = server.post("/lora-adapters", &lora.to_string());
        assert_eq!(answer.status, 400, "{lora}: {}", answer.body);
    }
}
