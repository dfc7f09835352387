from pipelines.demo.tiny_architectures import build_model, build_processor
from pipelines.demo.tiny_tokenizer import train_tokenizer
import torch


def build_tiny_model(out, *, architecture="qwen2_vl", warm_up=True, seed=0):
    torch.manual_seed(seed)
    t = train_tokenizer()
    m = build_model(architecture, t)
    m.save_pretrained(out)
    build_processor(architecture, t).save_pretrained(out)
    return out
