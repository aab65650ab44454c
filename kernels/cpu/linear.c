/* y = x @ W^T + bias with W packed into panels; and the packing. */
#include <omp.h>

#include "kernels.h"
#include "panel.h"

int64_t lpx_panel_columns(void) { return NR; }

/* W[n, k] as floats → panels, by so many threads; 0: by all. Returns whether nothing was lost. */
int lpx_pack(const float *w, int64_t n, int64_t k, int64_t kind, void *panels, int64_t threads) {
  int64_t count = (n + NR - 1) / NR;
  uint32_t lost = 0;
#pragma omp parallel for schedule(static) reduction(| : lost) \
    num_threads(threads ? threads : omp_get_max_threads())
  for (int64_t p = 0; p < count; p++) {
    char *panel = (char *)panel_at(panels, p, k, (int)kind);
    for (int64_t i = 0; i < k; i++) {
      float row[NR];
      for (int64_t j = 0; j < NR; j++) row[j] = p * NR + j < n ? w[(p * NR + j) * k + i] : 0.0f;
      if (kind == BF16) {
        uint32_t *words = (uint32_t *)panel + i * VL;
        for (int j = 0; j < NR; j++) {
          uint32_t bits;
          memcpy(&bits, &row[j], sizeof bits);
          lost |= bits & 0xffff;
        }
        for (int j = 0; j < VL; j++)
          words[j] = ((uint32_t)narrow(row[j]) << 16) | narrow(row[VL + j]);
      } else {
        memcpy((float *)panel + i * NR, row, sizeof row);
      }
    }
  }
  return lost == 0;
}

/* x [m, k] and y [m, n] have contiguous rows. */
void lpx_linear(const float *x, const void *panels, const float *bias, float *y, int64_t m,
                int64_t k, int64_t n, int64_t kind) {
  int64_t count = (n + NR - 1) / NR;
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < count; p++) linear_panel(x, panels, bias, y, m, k, n, (int)kind, p);
}
