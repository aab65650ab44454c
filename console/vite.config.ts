import preact from '@preact/preset-vite'
import { defineConfig } from 'vite'

// The API serves what is built; `npm run dev` asks the one at LORAPLEX_URL.
const api = process.env.LORAPLEX_URL ?? 'http://127.0.0.1:8000'

export default defineConfig({
  plugins: [preact()],
  build: {
    outDir: '../api/console/static',
    emptyOutDir: true,
    modulePreload: { polyfill: false },
    rollupOptions: { input: ['index.html', 'docs.html'] },
    chunkSizeWarningLimit: 2000, // Swagger UI; the console doesn't load it
    assetsInlineLimit: 0, // nothing that the content security policy forbids
  },
  server: { proxy: { '/api': api, '/v1': api, '/console': api, '/deployments': api } },
})
