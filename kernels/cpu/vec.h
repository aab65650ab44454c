/* Vectors by GCC's and Clang's vector extensions: one source for AVX2, AVX-512 and NEON.
 *
 * VL: floats a vector. NR: output columns a panel (two vectors). MR: rows that a panel's inner loop
 * keeps in registers (MR x 2 accumulators, 2 weights and a broadcast must fit the register file).
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define VL 16
#define MR 12
#else
#define VL 8
#define MR 6
#endif
#define NR (2 * VL)

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * VL), aligned(2), may_alias));

/* x - 0 is x, whatever its sign: the compiler drops the subtraction (it keeps x + 0). */
INLINE vf splat(float x) { return x - (vf){}; }
INLINE vf load(const float *p) { return *(const vf *)p; }
INLINE void store(float *p, vf x) { *(vf *)p = x; }

/* bfloat16 is the upper half of a float. */
INLINE float widen(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
INLINE vf load_bf16(const uint16_t *p) {
  return (vf)(__builtin_convertvector(*(const vh *)p, vu) << 16);
}
/* Round to nearest even, as torch does. */
INLINE uint16_t narrow(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE vf pick(vi where, vf a, vf b) { return (vf)(((vi)a & where) | ((vi)b & ~where)); }

INLINE float sum(vf x) {
  typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
  quad q[VL / 4], s;
  memcpy(q, &x, sizeof x);
  s = q[0];
  for (int i = 1; i < VL / 4; i++) s += q[i];
  return (s[0] + s[1]) + (s[2] + s[3]);
}

/* e^x to about 1 ulp for x <= 88; 0 below -87. Cody-Waite reduction, minimax polynomial (Cephes). */
INLINE vf exp_v(vf x) {
  vf low = splat(-87.0f), high = splat(88.0f);
  vi dead = x < low;
  x = pick(x > high, high, x);
  x = pick(dead, low, x);
  vf scaled = x * splat(1.44269504088896341f);
  vf rounder = splat(12582912.0f); /* 1.5 * 2^23: rounds to an integer */
  vf n = (scaled + rounder) - rounder;
  vf r = x - n * splat(0.693359375f);
  r = r - n * splat(-2.12194440e-4f);
  vf p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  vf e = p * r * r + r + splat(1.0f);
  vi power = (__builtin_convertvector(n, vi) + 127) << 23;
  e = e * (vf)power;
  return pick(dead, splat(0.0f), e);
}
