/* Paged attention for decode: one query row a sequence, keys and values in cache slots. */
#include <omp.h>
#include <stdlib.h>

#include "kernels.h"
#include "vec.h"

INLINE vf load_kind(const void *p, int64_t at, int bf16) {
  return bf16 ? load_bf16((const uint16_t *)p + at) : load((const float *)p + at);
}
INLINE float load_one(const void *p, int64_t at, int bf16) {
  return bf16 ? widen(((const uint16_t *)p)[at]) : ((const float *)p)[at];
}

/* Write rows of k and v [tokens, width] (token stride `ld`) to their slots. */
void lpx_store_kv(const float *k, const float *v, void *kc, void *vc, const int64_t *slots,
                  int64_t tokens, int64_t k_width, int64_t v_width, int64_t ldk, int64_t ldv,
                  int64_t bf16) {
  for (int64_t t = 0; t < tokens; t++) {
    if (bf16) {
      uint16_t *kd = (uint16_t *)kc + slots[t] * k_width, *vd = (uint16_t *)vc + slots[t] * v_width;
      for (int64_t i = 0; i < k_width; i++) kd[i] = narrow(k[t * ldk + i]);
      for (int64_t i = 0; i < v_width; i++) vd[i] = narrow(v[t * ldv + i]);
    } else {
      memcpy((float *)kc + slots[t] * k_width, k + t * ldk, k_width * 4);
      memcpy((float *)vc + slots[t] * v_width, v + t * ldv, v_width * 4);
    }
  }
}

typedef struct { /* one layer of the KV cache */
  const void *kc, *vc;
  int64_t kv_heads, d, dv, block;
  float scale, softcap;
} Cache;

/* Rows lie scattered: the hardware doesn't foresee them, but we do. */
#define AHEAD 8
INLINE void fetch(const void *p, int64_t at, int64_t n, int bf16) {
  int size = bf16 ? 2 : 4;
  for (int64_t byte = 0; byte < n * size; byte += 64)
    __builtin_prefetch((const char *)p + at * size + byte);
}

/* scores[t] = q . k_t for one query head. */
INLINE void score(const Cache *c, const float *q, float *scores, const int64_t *rows, int64_t n,
                  int bf16) {
  for (int64_t t = 0; t < n; t++) {
    int64_t at = rows[t] * c->d, i = 0;
    if (t + AHEAD < n) fetch(c->kc, rows[t + AHEAD] * c->d, c->d, bf16);
    vf a = splat(0.0f), b = splat(0.0f);
    for (; i + 2 * VL <= c->d; i += 2 * VL) {
      a += load(q + i) * load_kind(c->kc, at + i, bf16);
      b += load(q + i + VL) * load_kind(c->kc, at + i + VL, bf16);
    }
    for (; i + VL <= c->d; i += VL) a += load(q + i) * load_kind(c->kc, at + i, bf16);
    float s = sum(a + b);
    for (; i < c->d; i++) s += q[i] * load_one(c->kc, at + i, bf16);
    s *= c->scale;
    scores[t] = c->softcap > 0 ? c->softcap * tanhf(s / c->softcap) : s;
  }
}

/* In place; a sink is one more logit, which has no value. */
INLINE void soften(float *row, int64_t n, const float *sink) {
  float top = sink ? *sink : -INFINITY, total = 0;
  for (int64_t t = 0; t < n; t++) top = row[t] > top ? row[t] : top;
  int64_t t = 0;
  vf part = splat(0.0f);
  for (; t + VL <= n; t += VL) {
    vf e = exp_v(load(row + t) - top);
    store(row + t, e);
    part += e;
  }
  for (; t < n; t++) total += row[t] = expf(row[t] - top);
  total += sum(part) + (sink ? expf(*sink - top) : 0);
  float inverse = 1 / total;
  for (t = 0; t < n; t++) row[t] *= inverse;
}

/* out[g, i : i + 2 VL] of up to four query heads at a time: a value is converted once for all. */
#define HEADS 4
INLINE void gather(int heads, const Cache *c, const float *scores, int64_t ld, float *out,
                   const int64_t *rows, int64_t n, int64_t i, int bf16) {
  vf acc[HEADS][2];
#pragma GCC unroll 4
  for (int g = 0; g < heads; g++) acc[g][0] = acc[g][1] = splat(0.0f);
  for (int64_t t = 0; t < n; t++) {
    int64_t at = rows[t] * c->dv + i;
    if (t + AHEAD < n) fetch(c->vc, rows[t + AHEAD] * c->dv + i, 2 * VL, bf16);
    vf v0 = load_kind(c->vc, at, bf16), v1 = load_kind(c->vc, at + VL, bf16);
#pragma GCC unroll 4
    for (int g = 0; g < heads; g++) {
      float p = scores[g * ld + t];
      acc[g][0] += p * v0;
      acc[g][1] += p * v1;
    }
  }
#pragma GCC unroll 4
  for (int g = 0; g < heads; g++) {
    store(out + g * c->dv + i, acc[g][0]);
    store(out + g * c->dv + i + VL, acc[g][1]);
  }
}

/* The query heads of one kv head over context [from, length) of one sequence. */
INLINE void attend(const Cache *c, const float *q, const float *sinks, float *out, float *scores,
                   int64_t *rows, const int32_t *blocks, int64_t h, int64_t group, int64_t from,
                   int64_t length, int bf16) {
  int64_t n = length - from, i = 0;
  for (int64_t t = from; t < length; t++) /* rows of the cache: a head of a slot each */
    rows[t - from] = (blocks[t / c->block] * c->block + t % c->block) * c->kv_heads + h;
  for (int64_t g = 0; g < group; g++) {
    score(c, q + g * c->d, scores + g * n, rows, n, bf16);
    soften(scores + g * n, n, sinks ? sinks + g : NULL);
  }
  for (; i + 2 * VL <= c->dv; i += 2 * VL)
    for (int64_t g = 0; g < group; g += HEADS) {
      const float *p = scores + g * n;
      float *o = out + g * c->dv;
      switch (group - g) {
        case 1: gather(1, c, p, n, o, rows, n, i, bf16); break;
        case 2: gather(2, c, p, n, o, rows, n, i, bf16); break;
        case 3: gather(3, c, p, n, o, rows, n, i, bf16); break;
        default: gather(HEADS, c, p, n, o, rows, n, i, bf16);
      }
    }
  for (; i < c->dv; i++) /* what is left of an odd head size */
    for (int64_t g = 0; g < group; g++) {
      float total = 0;
      for (int64_t t = 0; t < n; t++)
        total += scores[g * n + t] * load_one(c->vc, rows[t] * c->dv + i, bf16);
      out[g * c->dv + i] = total;
    }
}

/* q [sequences, heads, d] (sequences ldq apart), out [sequences, heads, dv]; tables [sequences, max_blocks] block numbers;
 * lengths: context with the new token. window 0: none. sinks: one logit a head, or NULL.
 * A sequence's result does not depend on the others. Returns 0, or 1 when memory is short. */
int lpx_decode(const float *q, const void *kc, const void *vc, float *out, const int32_t *tables,
               const int64_t *lengths, int64_t sequences, int64_t ldq, int64_t max_blocks,
               int64_t heads, int64_t kv_heads, int64_t d, int64_t dv, int64_t block, double scale,
               double softcap, int64_t window, const float *sinks, int64_t bf16) {
  Cache c = {kc, vc, kv_heads, d, dv, block, (float)scale, (float)softcap};
  int64_t group = heads / kv_heads, longest = 0;
  for (int64_t s = 0; s < sequences; s++) longest = lengths[s] > longest ? lengths[s] : longest;
  int failed = 0;
#pragma omp parallel reduction(| : failed)
  {
    int64_t *rows = malloc(longest * (sizeof *rows + group * sizeof(float)) + 64);
    float *scores = (float *)(rows + longest);
    failed = !rows;
    /* All heads of a sequence by one thread: they share its pages; unless threads would idle. */
    int64_t share = sequences >= 2 * omp_get_num_threads() ? kv_heads : 1;
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t item = 0; item < sequences * kv_heads / share; item++) {
      if (failed) continue;
      for (int64_t head = item * share; head < (item + 1) * share; head++) {
        int64_t s = head / kv_heads, h = head % kv_heads, length = lengths[s];
        int64_t from = window > 0 && length > window ? length - window : 0;
        const float *qi = q + s * ldq + h * group * d;
        float *oi = out + (s * heads + h * group) * dv;
        const float *si = sinks ? sinks + h * group : NULL;
        const int32_t *blocks = tables + s * max_blocks;
        if (bf16)
          attend(&c, qi, si, oi, scores, rows, blocks, h, group, from, length, 1);
        else
          attend(&c, qi, si, oi, scores, rows, blocks, h, group, from, length, 0);
      }
    }
    free(rows);
  }
  return failed;
}
