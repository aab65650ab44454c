// Dark or light: as the system has it, unless the user said otherwise.
import { effect, signal } from '@preact/signals'

export type Theme = 'light' | 'dark'

const system = matchMedia('(prefers-color-scheme: dark)')
const kept = localStorage.getItem('theme')
const choice = signal<Theme | null>(kept === 'light' || kept === 'dark' ? kept : null)
export const theme = signal<Theme>('light')

const settle = () => (theme.value = choice.value ?? (system.matches ? 'dark' : 'light'))
system.addEventListener('change', settle)
effect(() => {
  settle()
  document.documentElement.dataset.theme = theme.value
})

export function toggleTheme() {
  choice.value = theme.value === 'dark' ? 'light' : 'dark'
  localStorage.setItem('theme', choice.value)
}
