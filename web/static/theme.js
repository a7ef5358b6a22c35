// Light, dark, or as the system has it: before the page is painted, so that it does not flash. No module, for that reason.
(() => {
  const wanted = localStorage.getItem("theme");
  if (wanted) document.documentElement.dataset.theme = wanted;
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark" || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    const say = () => { button.textContent = isDark() ? "Light" : "Dark"; button.title = isDark() ? "Light colours" : "Dark colours"; };
    button.addEventListener("click", () => {
      const theme = isDark() ? "light" : "dark";
      document.documentElement.dataset.theme = theme;
      localStorage.setItem("theme", theme);
      say();
    });
    say();
  });
})();
