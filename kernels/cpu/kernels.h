/* What the other files offer. Sizes in elements; pointers into torch's memory. */
#pragma once
#include <stdint.h>

/* The adapters of a step; Python fills it, the calls of every layer read it. */
typedef struct {
  int64_t segments;        /* 0: a base-only step */
  const int64_t *spans;    /* [segments]{first row, end row} */
  const char *table;       /* [groups][segments][stride], see lora.c */
  int64_t group_bytes;     /* from one group's part of the table to the next */
  int64_t stride;
  float *scratch;          /* [tokens][width] */
  int64_t width;
  int64_t kind;            /* of the adapters' panels */
} LoraStep;

void lpx_linear(const float *x, const void *panels, const float *bias, float *y, int64_t m,
                int64_t k, int64_t n, int64_t kind);
void lpx_adapted_linear(const float *x, const void *panels, const float *bias, float *y, int64_t m,
                        int64_t k, int64_t n, int64_t kind, int64_t slices, const int64_t *widths,
                        int64_t group, const LoraStep *step);
void lpx_store_kv(const float *k, const float *v, void *kc, void *vc, const int64_t *slots,
                  int64_t tokens, int64_t k_width, int64_t v_width, int64_t ldk, int64_t ldv,
                  int64_t bf16);
int lpx_decode(const float *q, const void *kc, const void *vc, float *out, const int32_t *tables,
               const int64_t *lengths, int64_t sequences, int64_t ldq, int64_t max_blocks,
               int64_t heads, int64_t kv_heads, int64_t d, int64_t dv, int64_t block, double scale,
               double softcap, int64_t window, const float *sinks, int64_t bf16);
void lpx_rms_norm(const float *x, const float *weight, float *y, int64_t rows, int64_t n,
                  double eps);
void lpx_silu_mul(const float *x, float *y, int64_t rows, int64_t n);
void lpx_rope(float *x, const float *cos, const float *sin, int64_t tokens, int64_t heads, int64_t d,
              int64_t ld);
void lpx_add(const float *a, const float *b, float *y, int64_t rows, int64_t n);
