"""The page at /ui in a headless Chromium: a message is sent, the answer streams in, numbers are shown.

    page.py BASE_URL MODEL
"""
import shutil, sys

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

base, model = sys.argv[1:3]
options = webdriver.ChromeOptions()
options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser")
for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
    options.add_argument(flag)
options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
wait = WebDriverWait(driver, 60)
at = lambda name: driver.find_element(By.ID, name)
try:
    driver.get(base + "/ui")
    wait.until(lambda _: len(at("model").find_elements(By.TAG_NAME, "option")) > 0)
    Select(at("model")).select_by_value(model)
    for name, value in (("num_predict", "12"), ("temperature", "0"), ("seed", "1")):
        at(name).clear()
        at(name).send_keys(value)
    at("text").send_keys("Name a colour.\n")
    wait.until(lambda _: "tokens/s, prompt" in driver.find_element(By.CSS_SELECTOR, ".rate").text)
    answer = driver.find_element(By.CSS_SELECTOR, ".message.assistant").text
    rate = driver.find_element(By.CSS_SELECTOR, ".rate").text
    assert answer and "first token" in rate, (answer, rate)
    at("num_predict").clear()
    at("num_predict").send_keys("2000")
    at("text").send_keys("Tell a long story.\n")
    wait.until(lambda _: len(driver.find_elements(By.CSS_SELECTOR, ".message.assistant")[-1].text) > 20)
    at("stop").click()
    wait.until(lambda _: "stopped" in driver.find_elements(By.CSS_SELECTOR, ".rate")[-1].text)
    at("show-numbers").click()
    wait.until(lambda _: "handmill_generated_tokens_total" in at("rows").text)
    at("clear").click()
    assert not driver.find_elements(By.CSS_SELECTOR, ".message")
    severe = [e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE" and "favicon" not in e["message"]]
    assert not severe, severe
    print(f"the page works: {rate}")
finally:
    driver.quit()
