/* A panel: NR columns of a weight, ready to be multiplied: [k][NR].
 *
 * FP32 panels hold floats. BF16 panels hold VL words a k, column j in the upper half of word j and
 * column VL + j in its lower half: one load and two cheap operations give two vectors of floats,
 * so that weights cross the memory bus at half the size and nothing is lost.
 */
#pragma once
#include <stddef.h>

#include "vec.h"

enum { FP32 = 0, BF16 = 1 };

INLINE const char *panel_at(const void *panels, int64_t index, int64_t k, int kind) {
  return (const char *)panels + index * k * NR * (kind == BF16 ? 2 : 4);
}

INLINE void panel_row(const char *panel, int64_t k, int kind, vf *w0, vf *w1) {
  if (kind == BF16) {
    vu words = *(const vu *)((const uint32_t *)panel + k * VL);
    *w0 = (vf)(words & 0xffff0000u);
    *w1 = (vf)(words << 16);
  } else {
    *w0 = load((const float *)panel + k * NR);
    *w1 = load((const float *)panel + k * NR + VL);
  }
}

/* acc = x[rows, k] @ panel; then y = acc, y = acc + bias or y += acc. `rows` is a constant. */
INLINE void panel_rows(int rows, const float *x, int64_t ldx, const char *panel, int64_t k,
                       int kind, const float *bias, int add, float *y, int64_t ldy, int width) {
  vf acc[MR][2];
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = splat(0.0f);
  for (int64_t i = 0; i < k; i++) {
    vf w0, w1;
    panel_row(panel, i, kind, &w0, &w1);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
      vf xi = splat(x[r * ldx + i]);
      acc[r][0] += xi * w0;
      acc[r][1] += xi * w1;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++) {
    float *out = y + r * ldy;
    if (width == NR) {
      vf a = acc[r][0], b = acc[r][1];
      if (bias) a += load(bias), b += load(bias + VL);
      if (add) a += load(out), b += load(out + VL);
      store(out, a);
      store(out + VL, b);
    } else {
      float edge[NR];
      store(edge, acc[r][0]);
      store(edge + VL, acc[r][1]);
      for (int j = 0; j < width; j++) {
        float value = edge[j] + (bias ? bias[j] : 0.0f);
        out[j] = add ? out[j] + value : value;
      }
    }
  }
}

#define CASE(n) \
  case n:       \
    panel_rows(n, x, ldx, panel, k, kind, bias, add, y, ldy, width); \
    break;

INLINE void panel_block(int rows, const float *x, int64_t ldx, const char *panel, int64_t k,
                        int kind, const float *bias, int add, float *y, int64_t ldy, int width) {
  switch (rows) {
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if MR > 6
    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
  }
}

/* y[m, width] (=, +=) x[m, k] @ panel (+ bias).
 * A row's result does not depend on the other rows: k is summed in order, whatever m is. */
static void panel_mm(int64_t m, const float *x, int64_t ldx, const char *panel, int64_t k, int kind,
                     const float *bias, int add, float *y, int64_t ldy, int width) {
  int64_t blocks = (m + MR - 1) / MR;
  for (int64_t b = 0; b < blocks; b++) { /* of nearly equal size: no small rest */
    int64_t from = m * b / blocks, rows = m * (b + 1) / blocks - from;
    const float *xb = x + from * ldx;
    float *yb = y + from * ldy;
    if (kind == BF16)
      panel_block((int)rows, xb, ldx, panel, k, BF16, bias, add, yb, ldy, width);
    else
      panel_block((int)rows, xb, ldx, panel, k, FP32, bias, add, yb, ldy, width);
  }
}

/* Panel p of a linear layer: y[m, its columns] = x @ W^T + bias. */
static void linear_panel(const float *x, const void *panels, const float *bias, float *y, int64_t m,
                         int64_t k, int64_t n, int kind, int64_t p) {
  int64_t left = n - p * NR;
  panel_mm(m, x, k, panel_at(panels, p, k, kind), k, kind, bias ? bias + p * NR : NULL, 0,
           y + p * NR, n, left < NR ? (int)left : NR);
}
