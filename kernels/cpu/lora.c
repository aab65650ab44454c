/* A linear layer with the step's adapters: y = x @ W^T + bias, then for each segment of rows, which has
 * an adapter of its own and of any rank, y[rows, slice] += (x[rows] @ A) @ B. Slices are the
 * projections that share x (q, k, v; or gate and up): one call shrinks for all of them.
 *
 * While the base's panels are multiplied, which keeps the arithmetic busy, each thread fetches the
 * adapters' panels that it will need: they are another memory's worth of work that would else come
 * on top. */
#include <omp.h>

#include "kernels.h"
#include "panel.h"

/* What one thread does for one segment, in order: shrink panels, then panels of each slice. */
typedef struct {
  const LoraStep *step;
  const int64_t *table, *widths;
  int64_t k, slices, threads, me;
  int kind;
} Share;

static int64_t panels_of(int64_t width) { return (width + NR - 1) / NR; }

static void expand_range(const Share *w, int64_t s, int64_t slice, int64_t *from, int64_t *to) {
  int64_t turn = (w->me + s) % w->threads, count = panels_of(w->widths[slice]);
  *from = count * turn / w->threads;
  *to = count * (turn + 1) / w->threads;
}

static void fetch(const char *p, int64_t bytes) {
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(p + b, 0, 2);
}

/* Segments [from, to) of this thread's share: fetch their panels. */
static void fetch_segments(const Share *w, int64_t from, int64_t to) {
  int64_t each = NR * (w->kind == BF16 ? 2 : 4), item = 0;
  for (int64_t s = 0; s < to; s++) {
    const int64_t *row = w->table + s * w->step->stride;
    for (int64_t p = 0; p * NR < row[1]; p++)
      if (item++ % w->threads == w->me && s >= from)
        fetch((const char *)row[0] + p * w->k * each, w->k * each);
    for (int64_t i = 0; i < w->slices && s >= from; i++) {
      int64_t a, b, rank = row[3 + 2 * i];
      expand_range(w, s, i, &a, &b);
      if (rank) fetch((const char *)row[2 + 2 * i] + a * rank * each, (b - a) * rank * each);
    }
  }
}

static void shrink(const Share *w, const float *x) {
  int64_t item = 0, ldt = w->step->width;
  for (int64_t s = 0; s < w->step->segments; s++) {
    const int64_t *row = w->table + s * w->step->stride, *span = w->step->spans + 2 * s;
    float *t = w->step->scratch + span[0] * ldt;
    for (int64_t p = 0; p * NR < row[1]; p++) {
      if (item++ % w->threads != w->me) continue;
      int64_t left = row[1] - p * NR;
      panel_mm(span[1] - span[0], x + span[0] * w->k, w->k,
               panel_at((const void *)row[0], p, w->k, w->kind), w->k, w->kind, NULL, 0,
               t + p * NR, ldt, left < NR ? (int)left : NR);
    }
  }
}

static void expand(const Share *w, float *y, int64_t ldy) {
  int64_t ldt = w->step->width;
  for (int64_t s = 0; s < w->step->segments; s++) {
    const int64_t *row = w->table + s * w->step->stride, *span = w->step->spans + 2 * s;
    const float *t = w->step->scratch + span[0] * ldt;
    float *out = y + span[0] * ldy;
    for (int64_t i = 0; i < w->slices; i++) {
      int64_t from, to, rank = row[3 + 2 * i];
      expand_range(w, s, i, &from, &to);
      for (int64_t p = from; p < to && rank; p++) {
        int64_t left = w->widths[i] - p * NR;
        panel_mm(span[1] - span[0], t, ldt,
                 panel_at((const void *)row[2 + 2 * i], p, rank, w->kind), rank, w->kind, NULL, 1,
                 out + p * NR, ldy, left < NR ? (int)left : NR);
      }
      t += rank;
      out += w->widths[i];
    }
  }
}

/* step->table[group][segment] = {address of A's panels, total rank, then per slice: address of B's
 * panels, rank (0: this slice is not adapted)}. x [m, k], y [m, n] with n the sum of the widths. */
void lpx_adapted_linear(const float *x, const void *panels, const float *bias, float *y, int64_t m,
                        int64_t k, int64_t n, int64_t kind, int64_t slices, const int64_t *widths,
                        int64_t group, const LoraStep *step) {
  const int64_t *table = (const int64_t *)(step->table + group * step->group_bytes);
  int64_t ranks = 0, count = panels_of(n);
  for (int64_t s = 0; s < step->segments; s++) ranks += table[s * step->stride + 1];
  if (!ranks) {
    lpx_linear(x, panels, bias, y, m, k, n, kind);
    return;
  }
#pragma omp parallel
  {
    int64_t threads = omp_get_num_threads(), me = omp_get_thread_num(), fetched = 0;
    Share w = {step, table, widths, k, slices, threads, me, (int)step->kind};
    int64_t first = count * me / threads, end = count * (me + 1) / threads;
    for (int64_t p = first; p < end; p++) {
      int64_t due = 1 + (step->segments - 1) * (p - first) / (end - first);
      if (due > fetched) fetch_segments(&w, fetched, due);
      fetched = due;
      linear_panel(x, panels, bias, y, m, k, n, (int)kind, p);
    }
    shrink(&w, x);
#pragma omp barrier
    expand(&w, y, n);
  }
}
