# GPU pools for a control plane that runs elsewhere (`loraplex up` on a machine of the network, say):
# on-demand L4s, and spot ones that are cheaper.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.90, < 7"
    }
  }
}

variable "zones" {
  type    = list(string)
  default = ["eu-central-1a", "eu-central-1b"]
}

variable "image" {
  type = string
}

variable "redis_url" {
  description = "As replicas reach it."
  type        = string
  sensitive   = true
}

variable "ami_id" {
  type    = string
  default = null
}

module "network" {
  source = "../../modules/network"
  name   = "loraplex"
  zones  = var.zones
}

resource "aws_ssm_parameter" "replicas" {
  name  = "/loraplex/replicas"
  type  = "SecureString"
  value = "LORAPLEX_REDIS_URL=${var.redis_url}"
}

module "pools" {
  source   = "../../modules/gpu_pool"
  for_each = { l4 = false, l4-spot = true }

  name                  = each.key
  accelerator           = "L4"
  spot                  = each.value
  vpc_id                = module.network.vpc_id
  subnet_ids            = module.network.private_subnet_ids
  ami_id                = var.ami_id
  image                 = var.image
  environment_parameter = aws_ssm_parameter.replicas.name
  redis_cidr            = "10.20.0.0/16"
}

output "settings" {
  description = "Of the scaler and the task workers."
  value = {
    LORAPLEX_DRIVER    = "ec2"
    LORAPLEX_EC2_POOLS = jsonencode({ for name, each in module.pools : name => each.pool })
    LORAPLEX_FLEET     = jsonencode({ for name, each in module.pools : name => 2 })
  }
}

output "driver_policies" {
  description = "For the role of the scaler and the task workers."
  value       = { for name, each in module.pools : name => each.driver_policy }
}
