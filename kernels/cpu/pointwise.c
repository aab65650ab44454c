/* Rows of one layer: RMSNorm, SiLU times gate, rotary embedding. Each is one pass over memory. */
#include "kernels.h"
#include "vec.h"

void lpx_rms_norm(const float *x, const float *weight, float *y, int64_t rows, int64_t n,
                  double eps) {
  for (int64_t r = 0; r < rows; r++) {
    const float *in = x + r * n;
    float *out = y + r * n;
    vf part = splat(0.0f);
    int64_t i = 0;
    float total = 0;
    for (; i + VL <= n; i += VL) part += load(in + i) * load(in + i);
    for (; i < n; i++) total += in[i] * in[i];
    float scale = 1 / sqrtf((total + sum(part)) / n + (float)eps);
    for (i = 0; i + VL <= n; i += VL) store(out + i, load(weight + i) * (load(in + i) * scale));
    for (; i < n; i++) out[i] = weight[i] * (in[i] * scale);
  }
}

/* x [rows, 2n]: gate, then up. y [rows, n] = silu(gate) * up. */
void lpx_silu_mul(const float *x, float *y, int64_t rows, int64_t n) {
#pragma omp parallel for schedule(static) if (rows * n > 1 << 15)
  for (int64_t r = 0; r < rows; r++) {
    const float *gate = x + r * 2 * n, *up = gate + n;
    float *out = y + r * n;
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
      vf g = load(gate + i);
      store(out + i, g / (1.0f + exp_v(-g)) * load(up + i));
    }
    for (; i < n; i++) out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
  }
}

/* In place on heads [tokens, heads, d] (token stride ld): halves rotated as Llama does it.
 * cos, sin [tokens, d]. */
void lpx_rope(float *x, const float *cos, const float *sin, int64_t tokens, int64_t heads, int64_t d,
              int64_t ld) {
  int64_t half = d / 2;
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t h = 0; h < heads; h++) {
      float *a = x + t * ld + h * d, *b = a + half;
      const float *c = cos + t * d, *s = sin + t * d;
      for (int64_t i = 0; i < half; i++) {
        float p = a[i], q = b[i];
        a[i] = p * c[i] - q * s[i];
        b[i] = q * c[half + i] + p * s[half + i];
      }
    }
}

void lpx_add(const float *a, const float *b, float *y, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < rows * n; i++) y[i] = a[i] + b[i];
}
